//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// postgresPlaces are where packages put the server where PATH does not lead.
var postgresPlaces = []string{
	"/usr/lib/postgresql/*/bin",                               // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                        // Red Hat
	"/usr/libexec/postgresql*",                                // Alpine
	"/opt/homebrew/opt/postgresql*/bin",                       // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                          // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",          // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/[1-9]*/bin", // Postgres.app
}

const (
	// downloadVersion is what is fetched where no Postgres is installed.
	downloadVersion = embeddedpostgres.V17
	// downloadLimit is long enough for its 30 MB on a slow line.
	downloadLimit = 5 * time.Minute
)

const installPostgres = "install the Postgres server (Debian and Ubuntu: apt install postgresql; macOS: brew install postgresql@17) or name a running one with --database-url"

// findPostgres answers the directory of initdb and postgres: on PATH, else the newest installed, else
// downloaded into dir. Where a cluster exists, only its own major version will do.
func findPostgres(ctx context.Context, version, dir string, log io.Writer) (string, error) {
	downloaded := filepath.Join(dir, "postgres-"+string(downloadVersion))
	seen := 0
	for _, bin := range append(postgresDirs(), filepath.Join(downloaded, "bin")) {
		if !hasPostgres(bin) {
			continue
		}
		seen++
		if version == "" || version == postgresVersion(bin) {
			return bin, nil
		}
	}
	if seen > 0 || version != "" && version != majorOf(string(downloadVersion)) {
		return "", fmt.Errorf("the data in %s was made by Postgres %s, which is not installed; install it, or choose another directory with --data-dir", dir, version)
	}
	logTo(log, "no Postgres is installed; downloading %s", downloadVersion)
	if err := downloadPostgres(ctx, downloaded, ""); err != nil {
		return "", err
	}
	return filepath.Join(downloaded, "bin"), nil
}

func postgresDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, place := range postgresPlaces {
		matches, _ := filepath.Glob(place) // fails on a malformed pattern alone
		slices.SortFunc(matches, func(a, b string) int { return versionIn(b) - versionIn(a) })
		dirs = append(dirs, matches...)
	}
	return dirs
}

func hasPostgres(bin string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(bin, program)); err != nil {
			return false
		}
	}
	return filepath.IsAbs(bin)
}

// postgresVersion asks the server for its major version; "" if it does not say.
func postgresVersion(bin string) string {
	// postgres (PostgreSQL) 17.5 (Debian 17.5-1)
	output, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output() //nolint:gosec // the Postgres that was found, or that the user named
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(string(output), "(PostgreSQL) ")
	return majorOf(firstField(version))
}

// majorOf is the number before the first dot or, as in 18beta1, the first letter.
func majorOf(version string) string {
	if end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		return version[:end]
	}
	return version
}

func firstField(s string) string {
	if fields := strings.Fields(s); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// versionIn is the first number in a path; 0 without one.
func versionIn(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(digits[0])
	return n
}

// downloadPostgres puts the server's programs into dir, from repository or, for "", the library's own choice.
func downloadPostgres(ctx context.Context, dir, repository string) error {
	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()

	result := make(chan error, 1)
	go func() { result <- unpackPostgres(dir, repository) }() // the library knows no context
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("no Postgres was found and none could be downloaded (%w); %s", err, installPostgres)
	}
	return nil
}

func unpackPostgres(dir, repository string) error {
	scratch, err := os.MkdirTemp("", "earmark-postgres-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	port, err := freePort()
	if err != nil {
		return err
	}
	config := embeddedpostgres.DefaultConfig().Version(downloadVersion).
		Port(uint32(port)). //nolint:gosec // the system gave the port
		BinariesPath(dir).CachePath(scratch).RuntimePath(filepath.Join(scratch, "run")).Logger(io.Discard)
	if repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	// The library has no way to only unpack: it also starts a server, which as root it cannot. What counts
	// is whether the programs are there.
	server := embeddedpostgres.NewDatabase(config)
	if err = server.Start(); err == nil {
		err = server.Stop()
	}
	switch {
	case hasPostgres(filepath.Join(dir, "bin")):
		return nil
	case err == nil:
		return errors.New("initdb is not in the archive")
	default:
		return err
	}
}
