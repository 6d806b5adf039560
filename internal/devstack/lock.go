//go:build unix

package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// DirLock reserves a data directory for one process. The kernel releases it when the
// process ends, however it ends.
type DirLock struct{ file *os.File }

// LockDir creates dir if necessary and locks it. If another process holds the lock, the
// error says which one.
func LockDir(dir string) (*DirLock, error) {
	if err := os.MkdirAll(dir, passableDirMode()); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "earmark.lock"), os.O_RDWR|os.O_CREATE, privateFileMode)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = writePID(file)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another earmark dev%s runs in %s; stop it, or choose another directory with --data-dir", holder(file), dir)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &DirLock{file: file}, nil
}

// Unlock releases the directory. The file stays, because removing it would let two
// processes lock two files with the same name.
func (l *DirLock) Unlock() error { return l.file.Close() }

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintln(file, os.Getpid())
	return err
}

func holder(file *os.File) string {
	content, err := os.ReadFile(file.Name())
	if pid := strings.TrimSpace(string(content)); err == nil && pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}
