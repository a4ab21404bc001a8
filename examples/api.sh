#!/usr/bin/env bash
# A video from a running server by its HTTP API, with curl alone: examples/api.sh http://127.0.0.1:7860 ada.mp4
set -euo pipefail
(($# == 2)) || { echo "examples/api.sh ADDRESS OUT.mp4, for example examples/api.sh http://127.0.0.1:7860 ada.mp4" >&2; exit 2; }
api=${1%/}/api/v1 out=$2

ask() { curl --silent --show-error --fail-with-body "$@"; }          # prints the refusal, {"error": "..."}, too
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }                # of one text in the server's JSON

token=$(ask --request POST "$api/tokens" | value token)
job=$(ask --header "Authorization: Bearer $token" --form person_name=ada --form motion_name=walk \
    --form 'options={"recipe": "none", "seed": 7}' "$api/jobs" | value id)  # your own: --form photo=@anna.jpg --form consent=true --form motion=@dance.mp4
state=queued
until [[ $state == done ]]; do
    sleep 1
    answer=$(ask --header "Authorization: Bearer $token" "$api/jobs/$job")
    state=$(value state <<<"$answer")
    echo "$state"
    if [[ $state == failed || $state == cancelled ]]; then echo "$answer" >&2; exit 1; fi
done
ask --header "Authorization: Bearer $token" --output "$out" "$api/jobs/$job/result"
echo "$out"
