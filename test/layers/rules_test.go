package layers

// module is the name of ours in go.mod.
const module = "skep"

// topLevel is all that may lie beside go.mod. The folders of Go code are the
// layers.
var topLevel = map[string]bool{
	"cmd": true, "fs": true, "net": true, "chunker": true, "repair": true, "cache": true, "test": true,
	"docs": true, "bin": true, "drive": true, // the last two are made by make and by the demo
	".git": true, ".ci": true, ".gitignore": true,
	"Makefile": true, "README.md": true, "LICENSE": true, "go.mod": true, "go.sum": true,
}

// layer says what one top-level folder may import of the others, and why not
// more.
type layer struct {
	imports []string
	why     string
}

var layers = map[string]layer{
	"chunker": {nil, "is the bottom: pure, so that formats and keys can be tested and reused alone"},
	"cache":   {[]string{"chunker"}, "reaches peers through writeback.Sink and readthrough.Source, so that it works, and is tested, without any"},
	"net":     {[]string{"chunker"}, "moves opaque shards, and stores them through holder.Store: it cannot see files"},
	"fs":      {[]string{"cache"}, "translates requests of the kernel: it knows no network and no keys"},
	"repair":  {[]string{"net", "chunker"}, "needs no key and no owner: it never sees the tree"},
	"cmd":     {[]string{"fs", "repair", "net", "cache", "chunker"}, "wires the product together: what is there for tests is not in it"},
	"test":    {[]string{"cmd", "fs", "repair", "net", "cache", "chunker"}, ""},
}

// order lists the packages of each layer from the bottom up. A package may
// import those on the lines before its own, and no other: so siblings do not
// know each other, and there are no cycles. A new package is entered here.
var order = map[string][][]string{
	"chunker": {
		{"secret", "record", "erasure"},
		{"words", "link", "group"},
		{"block", "dag", "keyring"},
		{"pack", "blockindex", "commit"},
		{"devices"},
	},
	"cache": {
		{"acl", "readerr", "space", "disk", "hosted"},
		{"journal", "backing", "packfiles"},
		{"state"},
		{"blocks", "tree"},
		{"readthrough", "evict"},
		{"writeback", "reseal"},
	},
	"net": {
		{"repeat", "wire", "host", "place"},
		{"dht", "client", "holder", "peers"},
		{"swarm"},
	},
	"fs": {
		{"loop"},
		{"mount"},
		{"adapter"},
	},
	"repair": {
		{"plan", "audit"},
		{"health"},
		{"run"},
	},
}

// library says where a package that is not ours may be imported, tests aside.
type library struct {
	prefix string   // of import paths
	in     []string // prefixes of our packages; none: in tests only
	why    string
}

var libraries = []library{
	{"github.com/hanwen/go-fuse/v2/fs", []string{"test/bench/sidebyside"}, "keeps an inode in memory for each that was looked up; fs/adapter is a RawFileSystem"},
	{"github.com/hanwen/go-fuse/", []string{"fs", "test/memfs", "test/blockdev", "test/bench/sidebyside"}, "FUSE is what the fs layer hides"},
	{"github.com/libp2p/", []string{"net", "cmd/skep/daemon", "test"}, "the network is what the net layer hides"},
	{"github.com/multiformats/go-multiaddr", []string{"net", "cmd/skep", "test"}, "the network is what the net layer hides"},
	{"github.com/syndtr/goleveldb/", []string{"cache/state", "test/crash"}, "it is an index behind the journal, and only state knows how far it is to be trusted"},
	{"github.com/ipfs/go-log", []string{"net/host", "test"}, "we log by log/slog; it is there to be silenced"},
	{"github.com/ipfs/go-datastore", []string{"net/dht"}, "only the DHT asks for one"},
	{"github.com/ipfs/go-cid", []string{"chunker", "net"}, "CIDs are a form of links, not our way to name things"},
	{"github.com/ipfs/go-unixfsnode", []string{"chunker/dag"}, "the form of files and directories is decided in one place"},
	{"github.com/ipfs/boxo", []string{"chunker/dag", "net"}, "the form of files and directories is decided in one place"},
	{"github.com/ipld/", []string{"chunker/dag"}, "the form of files and directories is decided in one place"},
	{"github.com/klauspost/reedsolomon", []string{"chunker/erasure"}, "the coding is part of the format"},
	{"github.com/klauspost/compress", []string{"chunker/block"}, "compression is part of the format of blocks"},
	{"github.com/fxamacker/cbor", []string{"chunker/record", "chunker/dag"}, "there is one CBOR, with one set of bounds"},
	{"lukechampine.com/blake3", []string{"chunker/erasure"}, "Bao trees are made and checked in one place"},
	{"golang.org/x/crypto", []string{"chunker/keyring"}, "keys are made in one place"},
	{"crypto/aes", []string{"chunker/secret"}, "what seals a message is chosen in one place, so that no key seals two"},
	{"crypto/cipher", []string{"chunker/secret"}, "what seals a message is chosen in one place, so that no key seals two"},
	{"math/rand", []string{"cmd", "net", "repair", "test"}, "what must not be guessed comes from crypto/rand"},
	{"github.com/spf13/", []string{"cmd/skep/cli"}, "the command line ends there"},
	{"pgregory.net/rapid", []string{"test"}, "it is for tests"},
	{"testing", []string{"test"}, "it is for tests"},
}

// pure are packages that must not touch the machine: what they import may not
// be any of these.
var pure = []string{"chunker", "repair/plan", "repair/health", "repair/audit", "net/place", "cache/space"}

var machine = map[string]string{
	"os": "files", "net": "the network", "net/http": "the network", "os/exec": "processes",
	"syscall": "the kernel", "golang.org/x/sys/unix": "the kernel", "log/slog": "a log",
}

// server are the names of go-fuse's request loop. Behind mount.Server it can be
// exchanged for another; what measures it (test) may name it.
var server = map[string]bool{"Server": true, "NewServer": true, "NewProtocolServer": true, "MountOptions": true}
