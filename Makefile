# make          build (release)
# make run      build, and show the plaintext of a curl under tlssniff
# make test     all tests, as root if possible
# make bench    what a capture costs and loses, beside other sniffers (docs/performance.md)
# make lint     formatting and lints of Rust and C
# make static   one file that needs no library, to copy to a server (target/static)
# make deb      a Debian package of that
#   ARCH=arm64 makes either for arm64; CROSS names what runs cargo for it (CROSS . --cargo VERB ...)
# make test-kernels   tests in virtual machines (scripts/test-kernels)
# make kernel-matrix  captures of programs on every kernel of docs/kernels.md (scripts/kernel-matrix)
# make install  to $(DESTDIR)$(PREFIX), as built before; make uninstall takes it away
#
# Missing packages are installed with apt-get (scripts/needs).

PREFIX ?= /usr/local
CARGO ?= cargo
ARCH ?= amd64
BINARY ?= target/release/tlssniff

bindir = $(DESTDIR)$(PREFIX)/bin
mandir = $(DESTDIR)$(PREFIX)/share/man/man8
# Where Wireshark looks for interfaces; empty: nowhere.
EXTCAP ?= $(shell tshark -G folders 2>/dev/null | sed -n 's/^\(Global \)\?Extcap path:[[:space:]]*//p')

bashdir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.PHONY: build
build:
	scripts/needs build
	$(CARGO) build --release

.PHONY: run
run: build
	scripts/needs demo
	scripts/demo

.PHONY: test
test:
	scripts/needs build test
	scripts/test

.PHONY: bench
bench: build
	scripts/needs bench
	bench/run
	$(CARGO) bench

.PHONY: lint
lint:
	scripts/needs build lint
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	clang-format --dry-run -Werror $(wildcard bpf/*.c bpf/*.h)

.PHONY: static
static:
	scripts/needs build vendored
	scripts/static $(ARCH)

.PHONY: deb
deb: static
	scripts/deb $(ARCH)

.PHONY: test-kernels
test-kernels:
	scripts/needs build test vendored
	scripts/test-kernels amd64 bullseye
	scripts/test-kernels amd64 bookworm
	scripts/test-kernels amd64 trixie
	scripts/test-kernels amd64 6.18
	scripts/test-kernels arm64 bullseye
	scripts/test-kernels arm64 bookworm
	scripts/test-kernels arm64 trixie
	scripts/test-kernels arm64 6.18

.PHONY: kernel-matrix
kernel-matrix:
	scripts/needs build test vendored
	scripts/kernel-matrix

.PHONY: install
install:
	@test -x $(BINARY) || { echo 'run make first, as yourself' >&2; exit 1; }
	install -D -m 755 $(BINARY) $(bindir)/tlssniff
	install -D -m 644 man/tlssniff.8 $(mandir)/tlssniff.8
	install -D -m 644 completions/tlssniff.bash $(bashdir)/tlssniff
	install -D -m 644 completions/_tlssniff $(zshdir)/_tlssniff
	install -D -m 644 completions/tlssniff.fish $(fishdir)/tlssniff.fish
	test -z "$(EXTCAP)" || { install -d $(DESTDIR)$(EXTCAP) && \
		ln -sf $(PREFIX)/bin/tlssniff $(DESTDIR)$(EXTCAP)/tlssniff; }

.PHONY: uninstall
uninstall:
	rm -f $(bindir)/tlssniff $(mandir)/tlssniff.8 $(bashdir)/tlssniff \
		$(zshdir)/_tlssniff $(fishdir)/tlssniff.fish
	test -z "$(EXTCAP)" || rm -f $(DESTDIR)$(EXTCAP)/tlssniff
