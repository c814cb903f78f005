package fsck

import (
	"context"
	"fmt"

	"skep/cache/tree"
	"skep/chunker/group"
	"skep/chunker/link"
)

// joined is how joining the swarm went.
type joined struct{ err error }

// join connects to the swarm, if that was not tried before.
func (c *checker) join(ctx context.Context) error {
	if c.joined == nil {
		c.joined = &joined{c.drive.Join(ctx)}
	}
	return c.joined.err
}

// repair has something damaged mended, if that was asked for, and returns what there is
// to say of it. It fails only when the check is to end.
//
// Nothing is let go of that holders were not seen to have: what is damaged here may be the
// last that there is.
func (c *checker) repair(ctx context.Context, mend func() error) (says string, stop error) {
	if !c.opt.Repair {
		return "", nil
	}
	err := c.join(ctx)
	if err == nil {
		err = mend()
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return fmt.Sprintf("; it stays as it is, for want of one that is whole: %v", err), nil
	}
	return "; mended, from holders", nil
}

// giveBack lets go of a chunk of a file, if holders have the block that it should be:
// whoever reads it fetches that.
func (c *checker) giveBack(ctx context.Context, ino tree.Ino, i int64, l link.Link) error {
	if _, err := c.drive.Reader.Get(ctx, l); err != nil {
		return err
	}
	return c.drive.Tree.DropChunk(ctx, ino, i)
}

// replace puts the pack that holders have in the place of one that is damaged.
func (c *checker) replace(ctx context.Context, id group.ID, n uint16) error {
	whole, err := c.drive.Reader.Pack(ctx, id, n)
	if err == nil {
		_, err = checkPack(c.drive.Read, whole)
	}
	if err != nil {
		return err
	}
	return c.drive.Packs.Put(id, n, whole)
}
