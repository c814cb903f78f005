package cli

import "github.com/spf13/cobra"

// termsCommand is a page of help: what the words of status and sync mean.
func termsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "terms",
		Short: "What the words of status and sync mean",
		Long: `What the words of status and sync mean.

What goes out
  change     a file, folder or name that the newest commit does not have yet
  commit     a state of the whole drive that is out; the words bring back the newest
  pack       pieces of many files and folders, encrypted, up to 16 MiB together
  shard      one of the n parts of a pack, any k of which rebuild it (say 4 of 7)
  holder     a peer that keeps shards of this drive
  swarm      all peers that know each other

How safe a file or a folder is
  local      changed since the newest commit: what changed is lost if this device is;
             or names that lead to it are with too few holders, and here
  out        enough holders have it to bring it back, but it is not as safe as it
             should be: a line below says what is missing, or is still being asked
  safe       all holders have it that should, or all but so few that rebuilding does
             not pay yet
  away       too few holders answer to read it now, and what of it is not on this
             device cannot be read. It comes back when they do
  lost       too few holders have it: the others are dead, or have lost theirs. What
             of it is not on this device comes back only if one of them does

How a peer is
  alive      it answered when it was asked last
  suspect    it did not answer just now, or for hours; what it holds still counts
  dead       silent for longer than --dead-after (72 hours unless told otherwise), or
             it lied: what it held is rebuilt on others. If it comes back it counts
             again
  unknown    not heard of since the daemon was started, or since this device itself
             was cut off

How packs are
  missing    shards that a holder has lost, or that were with a dead one; they are
             rebuilt by themselves, and on other peers if need be
  silent     holders that are suspect: if they stayed away, their shards would be
             missing
  safe only as long as every holder stays
             there were too few peers to spare when it was stored
  could be safer
             more peers are there now than when it was stored: it is to be stored
             again by itself

What status warns of
  Overtaken  another device of the drive made more commits, or as many and later: the
             words bring back its state, and not this one
  Set back   this home is older than what it brought out itself, as from a backup
  Others     another device of the drive may still need what was deleted here, so
             the room at the peers does not come back yet
  To be freed
             what was deleted or replaced still takes room at the holders, until it is
             known that no other device needs it
  Recovery   the words alone would not bring the drive back yet`,
	}
}
