#!/usr/bin/env bash
# The API with nothing but curl: one group of rollouts in, its verdicts out.
#   rewardsvc serve &
#   examples/curl.sh [http://127.0.0.1:8000]
set -euo pipefail
url=${1:-http://127.0.0.1:8000}
call=(curl --fail-with-body --silent --show-error --header "Authorization: Bearer ${REWARDSVC_API_KEY:-}")

echo '# Is it ready?'
"${call[@]}" "$url/readyz"

printf '\n\n# One group\n'
"${call[@]}" "$url/v1/rewards/math" --header 'Content-Type: application/json' --data-binary @- <<'END'
{"task": {"prompt": "What is 2/4 in lowest terms?", "reference": "1/2"},
 "rollouts": [{"id": "a", "completion": "\\boxed{\\frac{1}{2}}"},
              {"id": "b", "completion": "\\boxed{0.4}"},
              {"id": "c", "completion": "no idea"}]}
END

printf '\n\n# One verdict per line, each as soon as it is there\n'
"${call[@]}" "$url/v1/rewards/exact" --header 'Content-Type: application/json' --header 'Accept: application/x-ndjson' \
    --data-binary '{"task": {"reference": "Paris"}, "rollouts": [{"completion": "Paris"}, {"completion": "Rome"}]}'

printf '\n# What one reward takes and gives\n'
"${call[@]}" "$url/v1/rewards/exact"
echo
