# Sourced by the scripts beside it: installs what is missing, asks nothing, does nothing twice.

BUILD=(build-essential pkg-config ca-certificates curl
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev)
RUN=(gstreamer1.0-nice gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x gstreamer1.0-alsa gstreamer1.0-pulseaudio)
# The Rust version that Cargo.toml requires.
RUST=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then printf '\033[1m%s\033[0m\n' "$*" >&2; else printf '%s\n' "$*" >&2; fi; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" || { say "This needs root: run it as root, or with sudo that asks no password."; exit 1; }; fi
}

# install_packages PACKAGE...: those of Debian's packages that are not there yet.
install_packages() {
  local missing=() package
  if ! command -v apt-get >/dev/null; then
    command -v pkg-config >/dev/null && pkg-config --exists gstreamer-webrtc-1.0 && return
    say "Not a Debian or Ubuntu system: install these packages, then run this again."
    cat >&2 <<'OTHERS'
  Fedora:   sudo dnf install gcc pkgconf-pkg-config gstreamer1-devel gstreamer1-plugins-base-devel gstreamer1-plugins-bad-free-devel gstreamer1-plugins-good gstreamer1-plugins-bad-free gstreamer1-plugins-bad-free-extras gstreamer1-plugins-ugly gstreamer1-plugin-libav libnice-gstreamer1
  Arch:     sudo pacman -S --needed base-devel gstreamer gst-plugins-base gst-plugins-good gst-plugins-bad gst-plugins-ugly gst-libav libnice
  Homebrew: brew install pkg-config gstreamer libnice-gstreamer
OTHERS
    exit 1
  fi
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "Installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# install_rust: a Rust that is new enough.
install_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  local have
  have=$(rustc --version 2>/dev/null | cut -d' ' -f2 || true)
  if [ -n "$have" ] && [ "$(printf '%s\n' "$RUST" "$have" | sort -V | head -1)" = "$RUST" ]; then return; fi
  if command -v rustup >/dev/null; then
    say "Installing the current stable Rust by rustup (here: ${have:-none}, needed: $RUST)"
    rustup toolchain install stable --profile minimal
    export RUSTUP_TOOLCHAIN=stable
  else
    say "Installing Rust by rustup into ~/.cargo (here: ${have:-none}, needed: $RUST)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path
    . "$HOME/.cargo/env"
  fi
}
