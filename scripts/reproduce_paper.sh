#!/usr/bin/env bash
# Every analysis of Zhang et al. (PNAS 2024) that the data at hand allow, in order, then one table: theirs beside ours.
#
#   scripts/reproduce_paper.sh           runs here; what was interrupted goes on where it stopped
#   scripts/reproduce_paper.sh sbatch    prints the jobs for SLURM instead, evaluations depending on their predictions
#   scripts/reproduce_paper.sh tiny      minutes on a laptop: some demo domains, the bundled model, small windows
#
# Settings are environment variables; an analysis whose data are not given is left out, and the table says so.
#   MODEL=esm2_3b OUT=runs/paper PYTHON=python
#   DATA=        the data folder of the authors' repository: their own segments and secondary structures
#   STRUCTURES=  PDB or mmCIF files of the chains: contacts to score maps against
#   ALIGNMENTS=  <protein id>.a3m of their families: inverse covariance, correlation of couplings
#   KAIB=        2qkeE.pdb, 5jytA.pdb and 2QKEE_colabfold.a3m: two conformations
#   FAMILY=      an alignment (a3m or aligned FASTA) whose first row is the protein of the structure FAMILY_STRUCTURE
#   ISOFORMS=    a CSV of predicted isoforms and full-length structures, as evaluation=should_not_fold reads it
set -uo pipefail

mode=${1:-local}
case "$mode" in local | sbatch | tiny) ;; *) sed -n '2,17p' "$0"; exit 2 ;; esac
model=${MODEL:-esm2_3b} out=${OUT:-runs/paper} python=${PYTHON:-python}
data=${DATA:-} structures=${STRUCTURES:-} alignments=${ALIGNMENTS:-} kaib=${KAIB:-} isoforms=${ISOFORMS:-}
family=${FAMILY:-} family_structure=${FAMILY_STRUCTURE:-}
here=$(cd "$(dirname "$0")" && pwd)
dataset=(+dataset=zhang2024)
[ -n "$data" ] && dataset+=("dataset.path=$data")
[ -n "$structures" ] && dataset=(+dataset=pdb "dataset.path=$structures")
truth=$structures
single=() close=() near=(+experiment=pairs_50_100) far=(+experiment=pairs_over_100)
if [ -n "$data" ]; then
  single=(segments=list segments.kind=single "segments.path=$data/reproduce_single_recovery_w_bos_eos.json")
  close=(segments=list segments.kind=close_pairs "segments.path=$data/revision_close_distance_seg_reproduce.json")
  pairs=(readout=contact_head segments=list segments.kind=pairs)
  near=("${pairs[@]}" "segments.path=$data/reproduce_pair_recovery_50_100_w_bos_eos.json")
  far=("${pairs[@]}" "segments.path=$data/reproduce_pair_recovery_100_w_bos_eos.json")
fi
if [ "$mode" = tiny ]; then
  model=${MODEL:-tiny} out=${OUT:-demo/paper} truth=demo
  dataset=(+dataset=demo "dataset.ids=[2O9S_A,2EVB_A,3GQS_A,2O37_A,1TEN_A]")
  single=(segments.size=12 segments.margin=3 segments.threshold=2)
  close=(segments.size=6 segments.gap=3 segments.threshold=1)
fi
mkdir -p "$out"
worst=0 number=0 predictions="" jobs=""

run() { # run it here, or print the job
  if [ "$mode" = sbatch ]; then
    number=$((number + 1))
    jobs="$jobs:\$job$number"
    if [ "$1" = predict ]; then
      echo "job$number=\$(sbatch --parsable$(printf ' %q' "$here/predict.sbatch" "${@:2}"))"
      predictions="$predictions:\$job$number"
    else # reads what the predictions before it wrote
      local command
      command=$(printf '%q ' "$python" -m "plmjac.$1" "${@:2}")
      echo "job$number=\$(sbatch --parsable --dependency=afterany$predictions --wrap=$(printf '%q' "$command"))"
    fi
    return
  fi
  echo "-- plmjac.$*" >&2
  "$python" -m "plmjac.$1" "${@:2}"
  local code=$?
  [ $code -eq 75 ] && exit 75
  [ $code -gt $worst ] && worst=$code
  return 0
}
predict() { run predict "$@" "model=$model" "store=$out/$store.zarr"; }
evaluate() { run evaluate "+evaluation=$1" "out=$out/$1" "${@:2}"; }
shown() { # the schedules of a recovery experiment
  local name=$1 schedules="flanking random random_avoiding_30" list=""
  shift
  for schedule in $schedules; do
    local keys=()
    [ "$mode" = tiny ] && [ "$schedule" = random_avoiding_30 ] && keys=(schedule.distance=10)
    store=${name}_$schedule predict "${dataset[@]}" "$@" "schedule=$schedule" "${keys[@]}"
    list="$list,$out/${name}_$schedule.zarr"
  done
  run evaluate +evaluation=contact_recovery "out=$out/recovery_$name" "store=[${list#,}]"
}

# Figure 4: contact maps, and their couplings beside those of the family's alignment.
store=maps predict "${dataset[@]}" +experiment=contact_precision
[ -n "$truth" ] && evaluate contact_precision "store=$out/maps.zarr" evaluation.range=long
evaluate fingerprints "store=$out/maps.zarr"
if [ -n "$alignments" ]; then
  [ -n "$truth" ] && evaluate linear_baselines "store=$out/maps.zarr" "evaluation.alignments=$alignments" evaluation.range=long
  evaluate coupling_correlation "store=$out/maps.zarr" "evaluation.alignments=$alignments"
fi
evaluate capacity
# A control: what the same model shows of shuffled sequences.
store=shuffled predict "${dataset[@]}" +experiment=null_shuffle "keep=[contacts]"
evaluate false_discovery "store=[$out/maps.zarr,$out/shuffled.zarr]"

# Contact recovery under masking: single segments, then pairs.
shown single +experiment=single_segment "${single[@]}"
if [ "$mode" != tiny ] && [ -n "$data$structures" ]; then
  shown near "${near[@]}"
  shown far "${far[@]}"
fi
store=close_flanking predict "${dataset[@]}" +experiment=close_pairs "${close[@]}"
run evaluate +evaluation=contact_recovery "out=$out/recovery_close" "store=$out/close_flanking.zarr"
if [ "$mode" != tiny ]; then # two pairs whose flanks are known to the residue, with ESM-2 650M
  echo '{"2B61A": [[182, 316]], "1PVGA": [[101, 202]]}' > "$out/named_pairs.json"
  run predict +dataset=zhang2024 ${data:+"dataset.path=$data"} "dataset.ids=[2B61A,1PVGA]" +experiment=named_pairs \
    "segments.path=$out/named_pairs.json" model=esm2_650m "store=$out/named_pairs.zarr"
  run evaluate +evaluation=contact_recovery "out=$out/recovery_named" "store=$out/named_pairs.zarr"
fi

# The supplement and the first hypothesis.
if [ -n "$kaib" ]; then
  store=kaib predict +dataset=pdb "dataset.path=$kaib" "keep=[contacts,contact_head]"
  evaluate conformations +dataset=pdb "dataset.path=$kaib" "store=$out/kaib.zarr" evaluation.a=2qkeE_E \
    evaluation.b=5jytA_A "evaluation.alignment=$kaib/2QKEE_colabfold.a3m" "evaluation.maps=$out/baselines" evaluation.clusters=4
fi
if [ -n "$family" ]; then
  store=family predict +dataset=alignment "dataset.path=$family" "keep=[contacts,contact_head]"
  evaluate relatives "store=$out/family.zarr" "evaluation.alignment=$family" "structures=$family_structure"
fi
[ -n "$isoforms" ] && evaluate should_not_fold "evaluation.pairs=$isoforms"

if [ "$mode" = sbatch ]; then
  echo "sbatch --dependency=afterany$jobs --wrap=$(printf '%q' "$(printf '%q ' "$python" "$here/reproduction_table.py" "$out")")"
else
  "$python" "$here/reproduction_table.py" "$out"
fi
exit $worst
