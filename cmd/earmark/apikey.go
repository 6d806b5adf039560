package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/earmark-dev/earmark/internal/keys"
)

// Where commands that call a server find their key. There is no flag, because other
// accounts can read a command line.
const (
	apiKeyEnv     = "EARMARK_API_KEY"      //nolint:gosec // the name of a variable
	apiKeyFileEnv = "EARMARK_API_KEY_FILE" //nolint:gosec // the name of a variable
)

// apiKey returns the key from the environment; "" if there is none.
func apiKey() (string, error) {
	key, file := strings.TrimSpace(os.Getenv(apiKeyEnv)), os.Getenv(apiKeyFileEnv)
	from := apiKeyEnv
	switch {
	case key == "" && file == "":
		return "", nil
	case key != "" && file != "":
		return "", fmt.Errorf("%s and %s are both set; set one of them", apiKeyEnv, apiKeyFileEnv)
	case file != "":
		content, err := os.ReadFile(file) //nolint:gosec // whoever runs the command says which file
		if err != nil {
			return "", fmt.Errorf("%s: %w", apiKeyFileEnv, err)
		}
		key, from = strings.TrimSpace(string(content)), apiKeyFileEnv
	}
	if _, err := keys.Parse(key); err != nil {
		return "", fmt.Errorf("the key in %s is %w", from, err)
	}
	return key, nil
}
