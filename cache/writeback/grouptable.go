package writeback

import (
	"fmt"

	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/pack"
)

// groups gives the commit its group table. The commit's own pack will lie in a
// group, too, which may have to be founded: it is done now, so that the table
// has it. Packs that nothing needs once the commit is out are dead in it: who
// recovers the drive from this commit must not take one for the home of blocks that
// were moved out of it, as holders are told to delete it.
func (t *tailWriter) groups(c *commit.Commit) error {
	all, err := t.e.table.Groups()
	if err != nil {
		return err
	}
	size := t.f.b.Used() + len(t.f.refs)*pack.PerBlock + pack.Fixed
	for _, p := range commit.EncodeGroups(all) {
		size += len(p) + 512
	}
	size += len(c.Sign(t.e.cfg.Device)) + 4<<10
	class, ok := erasure.ClassFor(size)
	if !ok {
		return fmt.Errorf("%d bytes: %w", size, pack.ErrFull)
	}
	if err := t.e.ensureGroup(t.ctx, groupKind{class, group.Metadata}); err != nil {
		return err
	}
	if all, err = t.e.table.Groups(); err != nil {
		return err
	}
	t.listed = make(map[group.ID]bool, len(all))
	for i, g := range all {
		t.listed[g.ID] = true
		all[i].Dead.Union(t.idle[g.ID])
	}
	out := &spill{t: t}
	for _, p := range commit.EncodeGroups(all) {
		if err := out.add(p, nil); err != nil {
			return err
		}
	}
	c.Groups, err = out.end()
	return err
}
