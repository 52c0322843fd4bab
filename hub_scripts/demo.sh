#!/usr/bin/env bash
# The main job on a small real world, on a Hub of this machine: bash hub_scripts/demo.sh
# It makes its own environment, starts the Hub, publishes two CLIPs, a fine-tune and a dataset to it, ports, and shows
# what came out. Everything it makes lies in .venv and .demo; delete them to start afresh.
set -euo pipefail
source "$(dirname "$0")/env.sh" demo

demo=$PWD/.demo
mkdir -p "$demo"
exec 3< <(exec python hub_scripts/local_hub.py --root "$demo/hub" --port 0 2>"$demo/hub.log")
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
read -r line <&3 || { echo "Error: the local Hub did not start; see $demo/hub.log" >&2; exit 1; }
echo "$line"

# The clients' own settings. Xet is off because the local Hub speaks LFS alone; the real Hub needs none of this.
export HF_ENDPOINT=${line#Hub at } HF_TOKEN=hf_local_demo HF_HOME=$demo/home HF_HUB_DISABLE_XET=1
export HF_HUB_DISABLE_TELEMETRY=1 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

python -m hub_scripts.demo.publish --namespace demo

set -x
hf-bico port demo/vit64-digits --to demo/vit96 --dataset demo/digits --push
{ set +x; } 2>/dev/null

repo=demo/vit64-digits-on-vit96
python -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$HF_ENDPOINT/$repo" "$demo/card.html"
folder=$(python -c 'import sys; from huggingface_hub import snapshot_download, utils
utils.disable_progress_bars()
print(snapshot_download(sys.argv[1]))' "$repo")
echo
echo "The card as a page, to open in a browser: $demo/card.html"
echo "The same in Markdown: $folder/README.md"
echo "Report: $folder/hf_bico.json"
echo "Model:  $folder/open_clip_model.safetensors"
echo "The Hub's own files are in $demo/hub; its server stops with this script."
