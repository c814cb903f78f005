// Package fs is the layer between the kernel and the tree: it turns FUSE
// requests into calls of cache/tree, and the tree's answers and errors into
// what POSIX programs expect. It holds no file content, knows nothing of the
// network and does no cryptography.
//
// fs/adapter translates requests; fs/mount brings the translated filesystem to
// a directory and takes it away again. What the two promise to programs is
// described in docs/fs.md.
package fs
