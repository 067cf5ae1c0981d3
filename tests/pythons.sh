#!/usr/bin/env bash
# Runs tests/unit, tests/parity and tests/loopback on the CPython of other Debian releases: 3.13 (trixie) and 3.14 (forky).
#
#     tests/pythons.sh [FOLDER] [RELEASE...]
#
# FOLDER (default /var/tmp/lasersell-pythons) keeps the roots, so that a second run makes none. Needs root, debootstrap, and
# the network of apt and pip. A release that has another Python than the one named here fails: the classifiers in
# pyproject.toml say what was run.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-/var/tmp/lasersell-pythons}
[ $# -eq 0 ] || shift
releases=("$@")
[ ${#releases[@]} -gt 0 ] || releases=(trixie forky)
declare -A version=([trixie]=3.13 [forky]=3.14)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# In a mount namespace of its own: what is mounted into a root is gone with this program, however it ends.
[ "${PYTHONS_NAMESPACE:-}" = private ] ||
    PYTHONS_NAMESPACE=private exec unshare --mount --propagation private "$0" "$work" "${releases[@]}"

command -v debootstrap >/dev/null || apt-get install -y -q debootstrap
mkdir -p "$work"
failed=()

make_root() { # RELEASE ROOT
    # forky's signing key may be newer than this machine's keyring; trixie's signs it, too.
    local script=/usr/share/debootstrap/scripts/$1
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    debootstrap --variant=minbase --include=python3,python3-venv,python3-dev,gcc,libc6-dev,ca-certificates \
        "$1" "$2" "$mirror" "$script" >"$2.log" 2>&1 || { tail -20 "$2.log"; return 1; }
}

# A root sees this machine's name servers, certificates and pip settings, and nothing else of it.
prepare() { # ROOT
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || install -D -m 644 "$file" "$1$file"
    done
    for folder in ${PIP_FIND_LINKS:-} $(pip config get global.extra-index-url 2>/dev/null | tr ' ' '\n' | sed -n 's#^file://##p'); do
        [ ! -d "$folder" ] || { mkdir -p "$1$folder" && cp -aT "$folder" "$1$folder"; }
    done
    rm -rf "$1/src"
    mkdir "$1/src"
    git -C "$here" archive HEAD | tar -x -C "$1/src"
    mountpoint -q "$1/proc" || mount -t proc proc "$1/proc"
    mountpoint -q "$1/dev/shm" || mount --rbind /dev "$1/dev"
}

for release in "${releases[@]}"; do
    root=$work/$release
    echo "== $release: CPython ${version[$release]}"
    [ -x "$root/usr/bin/python3" ] || make_root "$release" "$root" || { failed+=("$release"); continue; }
    prepare "$root"
    status=0
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        PIP_DISABLE_PIP_VERSION_CHECK=1 ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_FIND_LINKS:+PIP_FIND_LINKS="$PIP_FIND_LINKS"} \
        VERSION="${version[$release]}" TESTS="${TESTS:-tests/unit tests/parity tests/loopback}" OPTIONS="${OPTIONS:--q -n2}" \
        bash -euc '
            python3 -c "import os, sys; assert sys.version.startswith(os.environ[\"VERSION\"] + \".\"), sys.version; print(sys.version)"
            cd /src
            [ -x /venv/bin/python ] || python3 -m venv /venv
            LASERSELL_BUILD_EXTENSION=yes /venv/bin/pip install -q ".[test]"
            # The installed package, with its core, and not the checkout beside the tests.
            rm -rf /tests && mkdir /tests && cp -a tests pyproject.toml docs README.md examples benchmarks csrc /tests
            cd /tests
            /venv/bin/python -c "import lasersell_sync as l; assert l.backend() == \"compiled\"; print(l.__file__)"
            exec /venv/bin/python -m pytest $OPTIONS $TESTS
        ' || status=$?
    [ "$status" -eq 0 ] || failed+=("$release")
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
echo "all passed: ${releases[*]}"
