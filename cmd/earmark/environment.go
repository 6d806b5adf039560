package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-envconfig"
)

const envPrefix = "EARMARK_"

// readEnvironment fills the settings from environment variables. Its error names the variable.
func readEnvironment(ctx context.Context, env *settings) error {
	// Each variable by itself, because the library's error names the field of the struct,
	// which the user does not know.
	fields := reflect.TypeFor[settings]()
	for i := range fields.NumField() {
		tag, found := fields.Field(i).Tag.Lookup("env")
		if !found {
			continue
		}
		one := reflect.New(reflect.StructOf([]reflect.StructField{fields.Field(i)}))
		if err := envconfig.Process(ctx, one.Interface()); err != nil {
			_, reason, _ := strings.Cut(err.Error(), ": ")
			name := envName(tag)
			return fmt.Errorf("%s is %q: %s", name, os.Getenv(name), reason)
		}
		reflect.ValueOf(env).Elem().Field(i).Set(one.Elem().Field(0))
	}
	return env.readDatabaseURL()
}

// readDatabaseURL reads the connection string from the file in EARMARK_DATABASE_URL_FILE.
func (s *settings) readDatabaseURL() error {
	switch {
	case s.DatabaseURLFile == "":
		return nil
	case s.DatabaseURL != "":
		return fmt.Errorf("EARMARK_DATABASE_URL and EARMARK_DATABASE_URL_FILE are both set; set one of them")
	}
	content, err := os.ReadFile(s.DatabaseURLFile)
	if err != nil {
		return fmt.Errorf("EARMARK_DATABASE_URL_FILE: %w", err)
	}
	if s.DatabaseURL = strings.TrimSpace(string(content)); s.DatabaseURL == "" {
		return fmt.Errorf("EARMARK_DATABASE_URL_FILE: %s is empty", s.DatabaseURLFile)
	}
	return nil
}

// envName returns the variable's name from a field's tag, which may contain a default too.
func envName(tag string) string {
	name, _, _ := strings.Cut(tag, ",")
	return name
}

// knownVariables are the environment variables that earmark reads.
func knownVariables() []string {
	names := []string{urlEnv, caFileEnv, apiKeyEnv, apiKeyFileEnv, providerKeyEnv, providerKeyFileEnv, "EARMARK_DEVSTACK_ORPHAN_DIR"}
	fields := reflect.TypeFor[settings]()
	for i := range fields.NumField() {
		if tag, found := fields.Field(i).Tag.Lookup("env"); found {
			names = append(names, envName(tag))
		}
	}
	return names
}

// warnOfEnvironment names EARMARK_ variables that nothing reads: they are probably
// misspelt.
func warnOfEnvironment(out io.Writer, environment []string) {
	known := knownVariables()
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
		fmt.Fprintf(out, "earmark: warning: the environment variable %s is not known and has no effect; did you mean %s?\n", clean(name), nearest)
	}
}

// distance returns the number of letters to insert, remove or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := before
			if a[i] != b[j] {
				replace++
			}
			before = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// hasPassword reports whether a connection string contains a password, as a URL or as
// key=value pairs.
func hasPassword(connection string) bool {
	if parsed, err := url.Parse(connection); err == nil && parsed.User != nil {
		_, has := parsed.User.Password()
		return has
	}
	config, err := pgconn.ParseConfig(connection)
	return err == nil && config.Password != "" && strings.Contains(connection, "password")
}
