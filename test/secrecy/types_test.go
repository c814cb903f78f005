package secrecy

import (
	"reflect"

	"skep/cache/blocks"
	"skep/cache/evict"
	"skep/cache/readthrough"
	"skep/cache/reseal"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/devices"
	"skep/chunker/keyring"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/fsck"
	"skep/fs/adapter"
	"skep/net/holder"
	"skep/net/host"
	"skep/repair/health"
	"skep/repair/run"
)

// carriers are all exported types that carry a secret, in a field or in a field
// of a field. TestCarriersAreComplete finds the ones that are missing.
var carriers = []reflect.Type{
	reflect.TypeFor[secret.Key](),
	reflect.TypeFor[words.Entropy](),
	reflect.TypeFor[link.Link](),
	reflect.TypeFor[keyring.Epoch](),
	reflect.TypeFor[keyring.Drive](),
	reflect.TypeFor[keyring.Received](),
	reflect.TypeFor[keyring.OldRoot](),
	reflect.TypeFor[keyring.Keyring](),
	reflect.TypeFor[keyring.Local](),
	reflect.TypeFor[keyring.Slot](),
	reflect.TypeFor[keyring.Recovery](),
	reflect.TypeFor[block.Sealed](),
	reflect.TypeFor[block.Sealer](),
	reflect.TypeFor[block.Prepared](),
	reflect.TypeFor[blockindex.Entry](),
	reflect.TypeFor[commit.Locator](),
	reflect.TypeFor[commit.Piece](),
	reflect.TypeFor[commit.Segment](),
	reflect.TypeFor[commit.Commit](),
	reflect.TypeFor[commit.Head](),
	reflect.TypeFor[devices.Found](),
	reflect.TypeFor[devices.View](),
	reflect.TypeFor[dag.Inode](),
	reflect.TypeFor[dag.File](),
	reflect.TypeFor[dag.Run](),
	reflect.TypeFor[dag.Change](),
	reflect.TypeFor[pack.Entry](),
	reflect.TypeFor[fsck.Home](),
	reflect.TypeFor[fsck.Drive](),
	reflect.TypeFor[blocks.Block](),
	reflect.TypeFor[blocks.Stored](),
	reflect.TypeFor[writeback.Config](),
	reflect.TypeFor[blocks.Fault](),
	reflect.TypeFor[pack.Builder](),
	reflect.TypeFor[health.Config](),
	reflect.TypeFor[health.State](),
	reflect.TypeFor[run.Config](),
	reflect.TypeFor[tree.Inode](),
	reflect.TypeFor[tree.Settled](),
	reflect.TypeFor[tree.ContentState](),
	reflect.TypeFor[holder.Config](),
	reflect.TypeFor[host.Config](),
	reflect.TypeFor[evict.Config](),
	reflect.TypeFor[tree.SetAttr](),
}

// running are those of them that have locks and goroutines: vet keeps them from
// being copied, so they are printed behind pointers only.
var running = []reflect.Type{
	reflect.TypeFor[dag.System](),
	reflect.TypeFor[readthrough.Reader](),
	reflect.TypeFor[readthrough.Packs](),
	reflect.TypeFor[evict.Keeper](),
	reflect.TypeFor[tree.Tree](),
	reflect.TypeFor[tree.File](),
	reflect.TypeFor[tree.Cut](),
	reflect.TypeFor[tree.CutFile](),
	reflect.TypeFor[reseal.Drive](),
	reflect.TypeFor[writeback.Engine](),
	reflect.TypeFor[holder.Holder](),
	reflect.TypeFor[run.Loop](),
	reflect.TypeFor[adapter.FS](),
	reflect.TypeFor[daemon.Daemon](),
}
