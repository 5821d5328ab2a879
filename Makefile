# make          build (release)
# make run      build, and show the plaintext of a curl under tlssniff
# make test     all tests, as root if possible
# make lint     formatting and lints of Rust and C
# make install  to $(DESTDIR)$(PREFIX), as built before; make uninstall takes it away
#
# Missing packages are installed with apt-get (scripts/needs).

PREFIX ?= /usr/local
CARGO ?= cargo

bindir = $(DESTDIR)$(PREFIX)/bin
mandir = $(DESTDIR)$(PREFIX)/share/man/man8
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

.PHONY: lint
lint:
	scripts/needs build lint
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	clang-format --dry-run -Werror $(wildcard bpf/*.c bpf/*.h)

.PHONY: install
install:
	@test -x target/release/tlssniff || { echo 'run make first, as yourself' >&2; exit 1; }
	install -D -m 755 target/release/tlssniff $(bindir)/tlssniff
	install -D -m 644 man/tlssniff.8 $(mandir)/tlssniff.8
	install -D -m 644 completions/tlssniff.bash $(bashdir)/tlssniff
	install -D -m 644 completions/_tlssniff $(zshdir)/_tlssniff
	install -D -m 644 completions/tlssniff.fish $(fishdir)/tlssniff.fish

.PHONY: uninstall
uninstall:
	rm -f $(bindir)/tlssniff $(mandir)/tlssniff.8 $(bashdir)/tlssniff \
		$(zshdir)/_tlssniff $(fishdir)/tlssniff.fish
