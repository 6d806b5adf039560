//go:build unix

package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// owner is the user that Postgres runs as.
type owner struct {
	name       string
	credential *syscall.Credential // nil: whoever we are
}

// postgresOwner picks the user for the server, which refuses to run as root, and gives dir to that user.
// The owner of existing data comes first, so that the data of an ordinary user still works under sudo and
// stays that user's.
func postgresOwner(dir, dataDir string) (*owner, error) {
	existing, err := ownerOf(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at the Postgres data: %w", err)
	}
	hasData := err == nil
	if us := os.Geteuid(); us != 0 {
		if hasData && int(existing) != us {
			return nil, fmt.Errorf("the Postgres data in %s belongs to another user (id %d); run as that user, or choose another directory with --data-dir", dataDir, existing)
		}
		return &owner{}, nil
	}
	if hasData && existing != 0 {
		return ownerByID(existing, dir)
	}
	for _, name := range []string{"postgres", "nobody"} {
		if account, err := user.Lookup(name); err == nil {
			return ownerFrom(account, dir)
		}
	}
	return nil, errors.New("Postgres does not run as root, and there is neither a user postgres nor a user nobody to run it as; run this as an ordinary user")
}

func ownerByID(id uint32, dir string) (*owner, error) {
	account, err := user.LookupId(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return nil, fmt.Errorf("find the owner of the Postgres data: %w", err)
	}
	return ownerFrom(account, dir)
}

func ownerFrom(account *user.User, dir string) (*owner, error) {
	ids, err := account.GroupIds()
	if err != nil {
		ids = []string{account.Gid} // the groups only widen what the user can reach
	}
	groups := make([]uint32, 0, len(ids))
	for _, id := range ids {
		group, err := parseID(id)
		if err != nil {
			return nil, err
		}
		groups = append(groups, group)
	}
	uid, err := parseID(account.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := parseID(account.Gid)
	if err != nil {
		return nil, err
	}
	o := &owner{name: account.Username, credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	if err := o.checkReach(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, fmt.Errorf("give the Postgres directory to user %s: %w", o.name, err)
	}
	return o, nil
}

// checkReach makes sure that the user may pass through every directory on the way to path. Without it
// initdb fails with a message that points anywhere but there.
func (o *owner) checkReach(path string) error {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at the way to the Postgres directory: %w", err)
		}
		if !o.mayPass(info) {
			return fmt.Errorf("Postgres does not run as root, and user %s, whom it would run as, cannot enter %s; choose a directory elsewhere with --data-dir, or run this as an ordinary user", o.name, path)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

func (o *owner) mayPass(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case stat.Uid == o.credential.Uid:
		return mode&0o100 != 0
	case stat.Gid == o.credential.Gid || slices.Contains(o.credential.Groups, stat.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

func ownerOf(path string) (uint32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s has no owner", path)
	}
	return stat.Uid, nil
}

func parseID(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read a user or group id: %w", err)
	}
	return uint32(n), nil
}
