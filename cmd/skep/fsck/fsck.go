package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"skep/cache/blocks"
	"skep/cache/hosted"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
)

// Report is what a check found.
type Report struct {
	Directories int   `json:"directories"`
	Files       int   `json:"files"`
	Bytes       int64 `json:"bytes"`
	// Unchecked files have content here, and what it should be is with holders.
	Unchecked int `json:"unchecked"`
	// Reread directories and files of the newest commit are the same for another
	// reader of UnixFS, as far as what they are made of is here, or is fetched;
	// of RereadAway ones it is not.
	Reread       int `json:"reread"`
	RereadAway   int `json:"reread_away"`
	PackFiles    int `json:"pack_files"`
	HostedGroups int `json:"hosted_groups"`
	HostedShards int `json:"hosted_shards"`
	// What holders have shown to have, if they were asked: packs with fewer shards
	// than they should have, of these those with too few to be read; and the files
	// in them. Unreal shards are those that holders say to have, and could not show.
	ShardsUnreal     int       `json:"shards_unreal"`
	Packs            int       `json:"packs"`
	PacksBelowTarget int       `json:"packs_below_target"`
	PacksLost        int       `json:"packs_lost"`
	FilesBelowTarget int       `json:"files_below_target"`
	FilesLost        int       `json:"files_lost"`
	Problems         []Problem `json:"problems"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	What    string `json:"what"`
	Problem string `json:"problem"`
}

// Options say how much is checked, and whether damage is mended.
type Options struct {
	// Progress, if not nil, is told how far each step is. It is not called
	// concurrently.
	Progress func(Progress)

	// Remote fetches what is only with holders, and asks them what they have.
	Remote bool
	// Repair mends what is damaged here and whole with holders, whom it asks: content is
	// let go of, so that they give it again, and packs of metadata are put right.
	Repair bool
}

// Progress is how far one step of something long is.
type Progress struct {
	Step     string
	Done, Of int64
	Bytes    bool // that is what is counted
}

// Home is what is checked: an open home that no daemon serves.
type Home struct {
	Hosted *hosted.Store // what is held for others
	Drive  *Drive        // nil if there is none
}

// Drive is what is checked of a drive.
type Drive struct {
	State  *state.Store
	Tree   *tree.Tree
	Table  *blocks.Table
	Packs  *packfiles.Store
	Here   *readthrough.Reader // of what is here alone
	Reader *readthrough.Reader // also of what holders have
	Names  secret.Key          // under which entries of directories are placed
	Read   secret.Key          // that opens packs' indexes

	// LetGo is what was let go of since the drive was opened, as it was not what had been
	// left on this device; nil: nobody knows.
	LetGo func() []Problem
	// IsBlock reports whether plain is the content of a block, by its tag if there is one.
	IsBlock func(ctx context.Context, l link.Link, tag block.Tag, plain []byte) (bool, error)
	// Join connects to the swarm, Count finds out which packs are needed.
	Join, Count func(context.Context) error
	// Manifest returns the checked manifest of a pack.
	Manifest func(context.Context, group.PackRef) (*group.Manifest, error)
	Holders  Holders
}

// Format hides the keys from every formatting verb.
func (Drive) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "fsck.Drive(…)") }

// Check checks a home. What a damaged index can be made anew from, opening the home has
// done; what is wrong after that is in the report.
func Check(ctx context.Context, h Home, opt Options) (Report, error) {
	var r Report
	c := checker{home: h, drive: h.Drive, r: &r, opt: opt, roots: map[link.Hash]string{}, parents: map[link.Hash]link.Hash{}}
	if err := c.hosted(ctx); err != nil || h.Drive == nil {
		return r, err
	}
	if c.reader = h.Drive.Here; opt.Remote {
		c.reader = h.Drive.Reader
		for _, step := range []func(context.Context) error{c.join, c.count, c.askHolders} {
			if err := step(ctx); err != nil {
				return r, err
			}
		}
	}
	for _, step := range []func(context.Context) error{
		c.rows,
		c.account,
		c.tree,
		c.reread,
		c.packFiles, // last: the others read from them
	} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	c.endStep()
	c.letGo()
	return r, nil
}

type checker struct {
	home   Home
	drive  *Drive
	r      *Report
	opt    Options
	reader *readthrough.Reader // without --remote, of what is here alone

	survey *survey // nil: nobody was asked
	joined *joined // nil: it was not tried

	roots   map[link.Hash]string    // paths of directories and files, by the block that leads to all of theirs
	parents map[link.Hash]link.Hash // a block that refers to a block

	mu  sync.Mutex // guards far and opt.Progress
	far Progress
}

// step begins a step of so many parts, of which there may be less, and ends the one
// before.
func (c *checker) step(what string, of int64) {
	c.endStep()
	c.far = Progress{Step: what, Of: of}
}

// endStep tells that nothing of the step is left.
func (c *checker) endStep() {
	if left := c.far.Of - c.far.Done; left > 0 {
		c.did(left)
	}
}

// did tells that n more parts of the step are done.
func (c *checker) did(n int64) {
	if c.opt.Progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.far.Done += n
	c.opt.Progress(c.far)
}

// committed takes note of where the newest commit has a directory or a file.
func (c *checker) committed(ino tree.Ino, path string) {
	if l, err := c.drive.Tree.Committed(ino); err == nil && !l.IsZero() {
		c.roots[l.Hash] = path
	}
}

// rowsOfFile is how many rows a file has, about, that are looked at.
const rowsOfFile = 3

// rows compares the rows of the tree with each other.
func (c *checker) rows(ctx context.Context) error {
	files, _ := c.drive.Tree.Usage()
	c.step("checking names", rowsOfFile*files)
	found := func(path, what string) { c.problem(path, errors.New(what)) }
	return c.drive.Tree.Audit(ctx, found, func() { c.did(1) })
}

// letGo tells what opening the home and reading files let go of, as far as the check has
// not said of these files that they were damaged.
func (c *checker) letGo() {
	if c.drive.LetGo == nil {
		return
	}
	said := map[string]bool{}
	for _, p := range c.r.Problems {
		said[p.What] = true
	}
	for _, p := range c.drive.LetGo() {
		if !said[p.What] {
			c.r.Problems = append(c.r.Problems, p)
		}
	}
}

func (c *checker) problem(path string, err error) {
	c.r.Problems = append(c.r.Problems, Problem{path, err.Error()})
}

// onlyAway reports whether err says that something is with holders, who are not to
// be asked.
func (c *checker) onlyAway(err error) bool {
	return !c.opt.Remote && errors.Is(err, readerr.ErrUnreachable)
}

// tree checks all directories and files.
func (c *checker) tree(ctx context.Context) error {
	_, bytes := c.drive.Tree.Usage()
	c.step("checking files", bytes)
	c.far.Bytes = true
	return c.dir(ctx, tree.Root, "/")
}

// dir checks a directory and all below it. Directories that were never looked
// at are with holders only.
func (c *checker) dir(ctx context.Context, ino tree.Ino, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	here, err := c.drive.Tree.IsLoaded(ino)
	if err != nil {
		c.problem(path, err)
		return nil
	}
	if !here && !c.opt.Remote {
		return nil
	}
	c.r.Directories++
	c.committed(ino, path)
	var subs []tree.DirEntry
	err = c.drive.Tree.EachEntry(ctx, ino, func(e tree.DirEntry) bool {
		switch e.Attr.Mode & 0o170000 {
		case 0o040000:
			subs = append(subs, e)
		case 0o100000:
			c.file(ctx, e.Attr.Ino, path+e.Name)
		default:
			c.r.Files++
		}
		return ctx.Err() == nil
	})
	if c.onlyAway(err) {
		c.r.Unchecked++
	} else if err != nil {
		c.problem(path, err)
	}
	for _, s := range subs {
		if err := c.dir(ctx, s.Attr.Ino, path+s.Name+"/"); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// file checks a file.
func (c *checker) file(ctx context.Context, ino tree.Ino, path string) {
	c.r.Files++
	s, err := c.drive.Tree.ContentState(ctx, ino)
	if err != nil {
		c.problem(path, err)
		return
	}
	done := c.far.Done
	defer func() { c.did(done + s.Size - c.far.Done) }()
	whole, err := c.content(ctx, ino, path)
	if err != nil {
		c.problem(path, err)
		return
	}
	c.committed(ino, path)
	committed := dag.File{Root: s.Content, Size: s.Size}
	if s.Dirty {
		committed = dag.File{}
	}
	enough := c.redundancy(ctx, path, committed)
	if (s.Resident < s.Size || !whole) && !c.opt.Remote {
		return // only holders have the rest
	}
	err = c.read(ctx, ino, s.Size, committed, enough)
	if !enough && (errors.Is(err, readerr.ErrUnreachable) || errors.Is(err, readerr.ErrLost)) {
		return // that has been said
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		c.problem(path, err)
	}
}

// read reads a file through the very code that programs read it through: what is
// here must be readable, what is not must match its hashes when fetched. If there
// should be enough to read what is committed of it, some is compared with that.
func (c *checker) read(ctx context.Context, ino tree.Ino, size int64, committed dag.File, enough bool) error {
	f, err := c.drive.Tree.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Release()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		n, err := f.ReadAt(ctx, buf, off)
		if err == nil && n == 0 {
			err = fmt.Errorf("ends at %d of %d bytes", off, size)
		}
		if err != nil {
			return err
		}
		off += int64(n)
		c.r.Bytes += int64(n)
		c.did(int64(n) / 2) // it is gone through twice
	}
	if !c.opt.Remote || !enough || committed.Root.IsZero() {
		return nil
	}
	return c.samples(ctx, f, committed)
}
