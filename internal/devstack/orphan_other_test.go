//go:build unix && !linux

package devstack

// orphanDirEnv is set by a test that Linux alone has.
const orphanDirEnv = "EARMARK_DEVSTACK_ORPHAN_DIR"

func runOrphanParent(string) {}
