// Package loop serves a mounted filesystem: it reads the kernel's requests from
// /dev/fuse, has a fuse.RawFileSystem answer them, and writes the answers back.
//
// # Why not go-fuse's own
//
// A request is a way to this process and back, and most of what it costs is
// waking threads. Here a request is handled by the goroutine that read it, and
// that goroutine tries to read the next one for a moment (spinTime) before it
// sleeps, so that a program that makes one request after the other finds
// somebody awake each time. It tries the more rarely the less that brought
// lately, not at all while other threads want the processors, and a drive that
// nobody uses costs nothing.
//
// Better than to be awake on another processor is to run on the caller's own: a
// worker that handles one small request after the other moves there and neither
// tries nor polls, but waits in read(2) (place).
//
// # Who reads
//
// Workers read and handle requests. Those that are at it are the readers; there
// is always at least one, and the last of them sleeps when nothing comes. More
// join, up to one for each core, when requests are found waiting again and
// again, and go when there are none.
//
// A request that waits must not keep the others waiting, so its worker stops
// being a reader and, if it was the last, another worker takes its place. That
// happens at once for requests that wait by their nature (locks), and
// when the filesystem calls Waits; and after a moment (patience) for any other.
// Handing over costs two wakings of threads, some tens of microseconds. So where
// requests of a kind said that they wait and were answered at once each time,
// such as a flush of a fast disk, one that comes alone is waited for.
//
// # Interrupts
//
// A worker handles one request at a time and offers it a channel, which is
// closed when the caller is to end, or when the connection has ended. The kernel
// tells of the first signal that a caller has while it waits, whichever it is. One
// that ends nobody must not end the call: programs know no such answer from a
// disk. So it is looked what signals the caller's thread has waiting (endsBy), and
// again every so often while its request is handled.
package loop
