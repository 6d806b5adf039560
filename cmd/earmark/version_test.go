package main

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	installed := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}
	cloned := &debug.BuildInfo{
		Main:     debug.Module{Version: "(devel)"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}},
	}
	for name, c := range map[string]struct {
		version, commit         string
		info                    *debug.BuildInfo
		wantVersion, wantCommit string
	}{
		"the linker set both":         {"v1.0.0", "abc", cloned, "v1.0.0", "abc"},
		"go install of a release":     {"", "", installed, "v1.2.3", ""},
		"go build of a clone":         {"", "", cloned, "dev", "0123456789ab"},
		"nothing recorded":            {"", "", &debug.BuildInfo{}, "dev", ""},
		"a short hash stays as it is": {"", "", &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "01"}}}, "dev", "01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			version, commit := identify(c.version, c.commit, c.info)
			require.Equal(t, c.wantVersion, version)
			require.Equal(t, c.wantCommit, commit)
		})
	}
}
