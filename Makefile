# plmjac: `make demo` and `make test` each work as the first command on a machine that has Python 3.11 and nothing else.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_MODEL := $(if $(wildcard plmjac/models/tiny.safetensors),tiny,debug)
ifeq ($(DEMO_MODEL),tiny)
DEMO_NOTE := the bundled model, which knows the families of these ten domains and no others: see docs/tiny.md
else
DEMO_NOTE := random weights, the maps mean nothing
endif

STRUCTURES ?=
RECOVERY := $(if $(STRUCTURES),pdb,demo)
# Windows small enough for the demo's domains of 47 to 81 residues; the paper's are for chains of 200 and more.
# BOS and EOS are masked: where tiny sees them, nearly all of its segments are recovered with nothing else shown.
RECOVERY_KEYS := +experiment=single_segment model=$(DEMO_MODEL) model.bos_eos=mask \
	segments.size=12 segments.margin=3 segments.threshold=2

.PHONY: help install demo recovery reproduce-tiny test test-quick test-weights test-faults test-slurm lint types format wheel clean bench gpu

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with plmjac and everything its tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "plmjac needs Python 3.11 or newer; try: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 2 GB (6 GB with CUDA), some minutes, and quiet"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## Contact maps of ten small domains, scored against their structures (table and demo/*-evaluation/)
	@echo "model=$(DEMO_MODEL): $(DEMO_NOTE)"
	$(BIN)/python -m plmjac.predict +dataset=demo model=$(DEMO_MODEL) store=demo/demo_$(DEMO_MODEL).zarr
	$(BIN)/python -m plmjac.evaluate +evaluation=contact_precision store=demo/demo_$(DEMO_MODEL).zarr
	@echo "look at demo/demo_$(DEMO_MODEL).zarr-evaluation/contact_maps.png, or at one protein in demo/demo_$(DEMO_MODEL).zarr-evaluation/proteins/"

recovery: install ## Contact recovery under masking, three schedules: curves in demo/recovery_*/ (STRUCTURES=folder for your own)
	$(BIN)/python -m plmjac.predict -m +dataset=$(RECOVERY) $(if $(STRUCTURES),dataset.path=$(STRUCTURES)) $(RECOVERY_KEYS) \
		schedule=flanking,random 'store=demo/$(RECOVERY)_$${schedule.name}.zarr'
	$(BIN)/python -m plmjac.predict +dataset=$(RECOVERY) $(if $(STRUCTURES),dataset.path=$(STRUCTURES)) $(RECOVERY_KEYS) \
		schedule=random_avoiding schedule.distance=10 store=demo/$(RECOVERY)_random_avoiding_10.zarr
	$(BIN)/python -m plmjac.evaluate +evaluation=contact_recovery out=demo/recovery_$(RECOVERY) \
		store=[demo/$(RECOVERY)_flanking.zarr,demo/$(RECOVERY)_random.zarr,demo/$(RECOVERY)_random_avoiding_10.zarr]

reproduce-tiny: install ## The paper's analyses on five domains with the bundled model: demo/paper/reproduction.md
	PYTHON=$(BIN)/python OUT=demo/paper scripts/reproduce_paper.sh tiny

test: install ## Run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-quick: install ## The tests that take seconds (two minutes in all), while working on the code
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-weights: install ## Fetch AntiBERTy's weights (100 MB) and the published esm2_8m (30 MB), and test with them
	test -d weights/antiberty || $(BIN)/python scripts/antiberty.py weights/antiberty
	PLMJAC_TEST_WEIGHTS=1 $(BIN)/python -m pytest -m weights $(ARGS)

test-faults: install ## Kill, fail and crowd a run in every way we know; prints the table (18 minutes)
	$(BIN)/python tests/faults/table.py $(ARGS)
	PLMJAC_TEST_FAULTS=1 $(BIN)/python -m pytest tests/faults/test_soak.py -rs

test-slurm: install ## The sbatch scripts under a real SLURM of one node (needs slurm-wlm and munge; 7 minutes)
	PLMJAC_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm -rs $(ARGS)

bench: install ## Authors' loop, transformers, plain and fast side by side (12 minutes; writes benchmark/)
	$(BIN)/python scripts/benchmark.py --precision-table $(ARGS)

# On the machine's own Python where there is no .venv: a GPU machine may have PyTorch and no network.
gpu: ## What only a GPU can show, in four minutes (ARGS="--wheels FOLDER": see scripts/gpu_check.py); writes benchmark/
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/gpu_check.py $(ARGS)

lint: install ## Style, formatting and the direction of imports
	$(BIN)/ruff check plmjac scripts tests
	$(BIN)/ruff format --check plmjac scripts tests
	$(BIN)/lint-imports

types: install ## mypy --strict
	$(BIN)/mypy

format: install ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix plmjac scripts tests
	$(BIN)/ruff format plmjac scripts tests

wheel: install ## Build dist/plmjac-*.whl
	$(BIN)/python -m build --wheel

clean: ## Remove what make made, but for .venv
	rm -rf demo benchmark dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
