# What one does with this repository; see README.md.

GO        ?= go
PREFIX    ?= /usr/local
DIR       ?= drive
FUZZTIME  ?= 30s
BENCHTIME ?= 1s
SOAKTIME  ?= 1h
CRASHTIME ?= 10m

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Packages with goroutines of their own run under the race detector, too.
RACE = ./cache/... ./net/... ./repair/run ./fs/... ./cmd/... ./chunker/block ./chunker/erasure
# The detector takes no note of what these do, which is arithmetic on what it was given:
# of signatures, key agreement, erasure coding and compression. It would be most of the
# time.
PURE = crypto/internal/fips140/edwards25519/... crypto/internal/fips140/nistec/... crypto/internal/fips140/mlkem \
	crypto/internal/fips140/bigmod math/big filippo.io/bigmod github.com/klauspost/reedsolomon github.com/klauspost/compress/...
RACEFLAGS = -race $(foreach pkg,$(PURE),-gcflags=$(pkg)=-race=false)
# A mount whose daemon has one thread shows requests that wait for each other.
FS = ./fs/... ./test/posix/...

# Programs that tests run, and the Debian packages that have them.
DEPS = gcc:build-essential git:git rsync:rsync fusermount3:fuse3 getfattr:attr setfacl:acl sqlite3:sqlite3 /sbin/mkfs.ext4:e2fsprogs
# What make posix runs besides.
DEPS_POSIX = fio:fio stress-ng:stress-ng Xvfb:xvfb pcmanfm:pcmanfm xdotool:xdotool gio:libglib2.0-bin dbus-run-session:dbus

.PHONY: build demo test vet test-race test-all test-fs test-stock lint bench scale soak race crash posix fuzz install clean deps room staticcheck

build:
	$(GO) build -trimpath -o bin/skep ./cmd/skep

# A swarm on this computer with a drive on it, mounted at DIR, until Ctrl-C.
demo: build
	bin/skep demo $(DIR)

# Everything, in a quarter of an hour at most on two cores.
test: deps build vet test-race test-all test-fs

vet:
	$(GO) vet ./...

test-race:
	test/race.sh $(GO) test $(RACEFLAGS) -short -timeout 10m $(RACE)
	test/race.sh $(GO) test $(RACEFLAGS) -short -timeout 10m -run 'Ahead|Ends|Fails' ./chunker/dag

test-all:
	$(GO) test -timeout 15m ./...

test-fs:
	GOMAXPROCS=1 $(GO) test -short -timeout 10m $(FS)

# The tests of the mount with go-fuse's own request loop in place of ours.
test-stock:
	SKEP_TEST_STOCK=1 $(GO) test -timeout 10m ./test/posix/...

lint: staticcheck
	@unformatted=$$(gofmt -l cmd fs net chunker repair cache test); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

# Fetches and builds the one tool that is not part of Go.
staticcheck:
	@$(GO) run $(STATICCHECK) -version || \
		{ echo "could not fetch $(STATICCHECK); lint needs it" >&2; exit 1; }

# The mount beside other filesystems, half an hour and more; the whole against its
# limits; then each part.
bench: build
	$(GO) run ./test/bench/sidebyside -skep bin/skep
	$(GO) run ./test/bench -skep bin/skep
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 2h ./...

# What one does on a drive of a thousand files to a million: how long it takes,
# and how many rows of the tables it reads. And what commits of a file of 4 GiB cost
# that is written at random, one of 50 GiB that is nearly all hole, and a directory
# of a million entries. First without mount and peers, then with both, half an hour
# and more.
scale: build
	SKEP_SCALE=1000000 $(GO) test -run 'TestScale|TestRandomWrites|TestLargeDirectory|TestHolesCostNothing' -v -timeout 2h ./cache/writeback
	for part in files directory image; do $(GO) run ./test/bench -skep bin/skep -only $$part -size 4GiB || exit 1; done

# Every test again and again, with new seeds, until one fails or SOAKTIME is over.
soak: deps
	timeout --foreground $(SOAKTIME) sh -c 'while SKEP_SOAK=10 $(GO) test -count=1 -timeout 1h ./...; do :; done; exit 1' || [ $$? -eq 124 ]

# All tests under the race detector, and the program, too, that some of them run.
race: room deps
	$(GO) build $(RACEFLAGS) -trimpath -o bin/skep-race ./cmd/skep
	SKEP_TEST_BINARY=$(CURDIR)/bin/skep-race test/race.sh $(GO) test $(RACEFLAGS) -short -timeout 2h ./...

# Every pair of operations with a crash at every moment in process, one within
# another and sequences of them at random for CRASHTIME each, and pairs with one crash on a mount, by a kill of
# the server and by power loss below the local filesystem (for which it has to be
# root); of each, then, random ones for CRASHTIME. And the whole daemon, which power
# is taken from for CRASHTIME.
crash:
	SKEP_CRASH=$(CRASHTIME) $(GO) test -count=1 -timeout 3h -v ./test/crash
	SKEP_CRASH=$(CRASHTIME) $(GO) test -count=1 -timeout 1h -v -run '^TestPower$$' ./test/e2e

# The mount at length: every call on every target beside ext4, and programs made
# to find faults in filesystems.
posix: deps
	$(MAKE) -s deps DEPS="$(DEPS_POSIX)"
	SKEP_POSIX=all $(GO) test -count=1 -timeout 3h -v ./test/posix

# Each fuzz target for FUZZTIME.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# The program, what mount(8) and /etc/fstab call, and a unit for
# "systemctl --user enable --now skep", where systemd looks for it also if PREFIX is
# ~/.local.
install: prefix = $(patsubst ~/%,$(HOME)/%,$(PREFIX))
install: build
	install -D -m 755 bin/skep $(DESTDIR)$(prefix)/bin/skep
	sed 's|=skep |=$(prefix)/bin/skep |' cmd/skep/systemd/skep.service | \
		install -D -m 644 /dev/stdin $(DESTDIR)$(prefix)/share/systemd/user/skep.service
	@{ install -d $(DESTDIR)/sbin && ln -sf $(prefix)/bin/skep $(DESTDIR)/sbin/mount.fuse.skep; } 2>/dev/null || \
		echo "without root, mount(8) and /etc/fstab will not know skep; \"skep mount\" does not need them"

clean:
	rm -rf bin

# Says at once where so many GiB are not free for what is built and what tests write: on
# a full disk they fail an hour later, and look like faults.
ROOM = 10
room:
	@for dir in "$${TMPDIR:-/tmp}" "$$($(GO) env GOCACHE)"; do \
		mkdir -p "$$dir" && free=$$(df -Pk "$$dir" | awk 'NR == 2 { print int($$4 / 1048576) }') || exit 1; \
		if [ "$$free" -lt $(ROOM) ]; then echo "$(ROOM) GiB have to be free in $$dir, where $$free are" >&2; exit 1; fi; \
	done

# Installs what the tests run, as root; else says how.
deps:
	@missing=; for dep in $(DEPS); do \
		command -v $${dep%%:*} >/dev/null || missing="$$missing $${dep#*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
		echo "the tests need more programs: sudo apt-get install$$missing" >&2; exit 1; \
	fi; \
	for wait in 5 15 45 0; do \
		apt-get -o Acquire::Retries=3 update && \
		DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y $$missing && exit 0; \
		sleep $$wait; \
	done; \
	echo "could not install$$missing" >&2; exit 1
