//go:build unix

package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	pathpkg "path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/pricing"
)

// block is one fenced block of a document.
type block struct {
	language, section, text string
}

var fence = regexp.MustCompile(`(?ms)^(?:## ([^\n]*)$|\x60{3}([a-z]*)\n(.*?)^\x60{3}$)`) //nolint:gocritic // (?m) lets ^ begin every line

func blocksOf(t *testing.T, document string) []block {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, document))
	require.NoError(t, err)
	var blocks []block
	section := ""
	for _, match := range fence.FindAllStringSubmatch(string(text), -1) {
		if match[1] != "" {
			section = match[1]
			continue
		}
		blocks = append(blocks, block{match[2], section, match[3]})
	}
	return blocks
}

// with returns the texts of a section's blocks in one language.
func with(blocks []block, section, language string) []string {
	var texts []string
	for _, b := range blocks {
		if b.section == section && b.language == language {
			texts = append(texts, b.text)
		}
	}
	return texts
}

// covered says for each section and language how many blocks there are, and which test
// runs them; a block that nothing runs has its reason here.
var covered = map[string]struct {
	blocks int
	by     string
}{
	"README.md//":                                               {1, "a picture"},
	"README.md/Run it/sh":                                       {1, "is what the tests of earmark dev do"},
	"README.md/The first reservation/sh":                        {3, "TestReadmeWalk"},
	"README.md/The first reservation/json":                      {3, "TestReadmeWalk"},
	"README.md/TLS and keys in three commands/sh":               {1, "TestReadmeTLSAndKeys"},
	"README.md/One line guards your calls/ts":                   {1, "the tests of clients/typescript"},
	"README.md/One line guards your calls/python":               {1, "the tests of clients/python"},
	"README.md/One line guards your calls/go":                   {1, "TestGoSnippets"},
	"docs/concepts.md/States/":                                  {1, "a picture"},
	"docs/http.md/Budgets/sh":                                   {4, "TestHTTPGuide"},
	"docs/http.md/Budgets/json":                                 {4, "TestHTTPGuide"},
	"docs/http.md/Keys/sh":                                      {1, "TestHTTPGuide"},
	"docs/http.md/Keys/json":                                    {1, "TestHTTPGuide"},
	"docs/http.md/Reserve/sh":                                   {1, "TestHTTPGuide"},
	"docs/http.md/Reserve/json":                                 {1, "TestHTTPGuide"},
	"docs/http.md/Idempotency/sh":                               {1, "TestHTTPGuide"},
	"docs/http.md/Idempotency/text":                             {1, "TestHTTPGuide"},
	"docs/http.md/Denials/sh":                                   {1, "TestHTTPGuide"},
	"docs/http.md/Denials/json":                                 {1, "TestHTTPGuide"},
	"docs/http.md/Extend the lease/sh":                          {1, "TestHTTPGuide"},
	"docs/http.md/Extend the lease/json":                        {1, "TestHTTPGuide"},
	"docs/http.md/Commit/sh":                                    {1, "TestHTTPGuide"},
	"docs/http.md/Commit/json":                                  {1, "TestHTTPGuide"},
	"docs/http.md/Release/sh":                                   {1, "TestHTTPGuide"},
	"docs/http.md/Release/json":                                 {1, "TestHTTPGuide"},
	"docs/http.md/Usage without a reservation/sh":               {1, "TestHTTPGuide"},
	"docs/http.md/Usage without a reservation/json":             {1, "TestHTTPGuide"},
	"docs/http.md/Corrections/sh":                               {1, "TestHTTPGuide"},
	"docs/http.md/Corrections/json":                             {1, "TestHTTPGuide"},
	"docs/http.md/Ask without reserving/sh":                     {1, "TestHTTPGuide"},
	"docs/http.md/Ask without reserving/json":                   {1, "TestHTTPGuide"},
	"docs/http.md/Look/sh":                                      {1, "TestHTTPGuide"},
	"docs/http.md/Look/json":                                    {1, "TestHTTPGuide"},
	"docs/security.md/Keys/sh":                                  {1, "TestTwoTenants and TestKeysOfTheCommandLine, with other names"},
	"docs/plans.md//sh":                                         {1, "TestPlans"},
	"docs/plans.md/An allowance from the day of the sign-up/sh": {1, "TestPlans"},
	"docs/plans.md/An allowance for every new user/sh":          {1, "TestPlans"},
	"docs/plans.md/A warning at 80 %/sh":                        {1, "TestPlans"},
	"docs/plans.md/A cap of five hours under one of a week/sh":  {1, "TestPlans"},
	"docs/plans.md/Prepaid credit after an allowance/sh":        {1, "TestPlans"},
	"docs/plans.md/Rollover of half/sh":                         {1, "TestPlans"},
	"docs/production.md/Deploy/sh":                              {3, "the first by TestOwnServices, the second by TestTLS; the third needs an account of Temporal Cloud"},
	"docs/production.md/Deploy/sql":                             {1, "TestAppRoleChangesNothingByItself, in the place of an account that can log in"},
	"docs/integrations.md/Python/yaml":                          {1, "test_litellm_proxy.py, with the file that has it"},
	"docs/production.md/Fair turns inside Temporal/yaml":        {1, "settings of Temporal's server, tried by hand on 1.29.1 with the figures below them"},
	"docs/production.md/Encrypt what Temporal keeps/sh":         {1, "TestPayloadsAreEncrypted"},
	"docs/operations.md/A Temporal cluster/sh":                  {2, "the first takes half an hour, and connects as the second says"},
	"docs/operations.md/A Temporal cluster/yaml":                {1, "the configuration of the nodes in TestTemporalCluster"},
	"docs/operations.md/A Postgres that fails over/sh":          {2, "the first takes minutes, and connects as the second says"},
	"docs/operations.md/A rolling upgrade/sh":                   {1, "takes minutes"},
	"docs/kubernetes.md/Install/sh":                             {2, "needs a cluster; the names of the Secrets are checked in tools/helm"},
	"docs/kubernetes.md/Install/yaml":                           {1, "TestDocument in tools/helm"},
	"docs/runbook.md/Paused/sh":                                 {1, "TestStatusPageUnpausesAll, which runs the line that the status page shows"},
	"docs/sizing.md/What a request needs/sh":                    {1, "takes minutes; TestCachedWorkflowsAreBounded has the bound"},
	"docs/sizing.md/When you outgrow one machine/sh":            {1, "takes minutes, and a build of Temporal's server"},
	"docs/design.md/States/":                                    {1, "a picture"},
	"docs/design.md/Admission/":                                 {1, "a picture"},
	"docs/gateway.md//sh":                                       {2, "TestGateway, with a fake provider in the place of OpenAI"},
	"docs/client.md//sh":                                        {1, "gets the module"},
	"docs/client.md//go":                                        {1, "TestGoSnippets"},
	"docs/client.md/A guard in three lines/go":                  {2, "TestGoSnippets"},
	"docs/client.md/Scopes of user ids/go":                      {1, "TestGoSnippets"},
	"docs/client.md/Streams/go":                                 {2, "TestGoSnippets"},
	"docs/client.md/A guarded transport/go":                     {1, "TestGoSnippets"},
	"docs/client.md/Middleware for net/http/go":                 {2, "TestGoSnippets"},
	"docs/integrations.md/Python/python":                        {2, "the tests of clients/python"},
	"docs/integrations.md/TypeScript/ts":                        {5, "the tests of clients/typescript"},
	"docs/python.md//sh":                                        {1, "gets the package"},
	"docs/python.md/A guard/python":                             {1, "the tests of clients/python"},
	"docs/python.md/A guarded SDK/python":                       {2, "the tests of clients/python"},
	"docs/python.md/Streams/python":                             {1, "the tests of clients/python"},
	"docs/typescript.md//sh":                                    {1, "gets the package"},
	"docs/typescript.md/A guard/ts":                             {1, "the tests of clients/typescript"},
	"docs/typescript.md/A guarded fetch/ts":                     {1, "the tests of clients/typescript"},
	"docs/typescript.md/The AI SDK/ts":                          {1, "the tests of clients/typescript"},
	"docs/typescript.md/Streams/ts":                             {1, "the tests of clients/typescript"},
	"docs/events.md/Webhooks/sh":                                {1, "TestWebhookCommands, beside the command line"},
	"docs/events.md/Webhooks/go":                                {1, "TestGoSnippets"},
	"docs/events.md/Webhooks/ts":                                {1, "the tests of clients/typescript"},
	"docs/events.md/Webhooks/python":                            {1, "the tests of clients/python"},
	"docs/cli.md/Budgets/console":                               {1, "TestShellSessions"},
	"docs/cli.md/Reservations/console":                          {1, "TestShellSessions"},
	"docs/cli.md/Tenants and keys/console":                      {1, "TestKeyCommands and TestTenantCommands, beside the command line"},
	"docs/cli.md/Prices/console":                                {1, "TestPriceCommands, beside the command line"},
	"docs/cli.md/Exit codes/sh":                                 {1, "TestShellScript"},
	"docs/cli.md/Replay real traffic/sh":                        {1, "TestReplay"},
	"docs/cli.md/Completion/sh":                                 {1, "depends on the reader's shell; the command has its own test"},
	"docs/observability.md//sh":                                 {2, "the worker in TestMetricsTellWhatHappened; there is no Docker where tests run, the file is checked in test/compose"},
	"docs/observability.md/Traces/sh":                           {1, "TestOneTraceAReservation, with serve in the place of dev"},
	"docs/runbook.md//sh":                                       {1, "TestRunbookLooks"},
	"docs/runbook.md/Settlement failing/sql":                    {1, "TestRunbookLooks"},
	"docs/runbook.md/A broken system, settled/console":          {7, "TestRunbook"},
	"docs/runbook.md/EarmarkDown/sh":                            {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkOverdueHolds/sh":                    {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkOrphans/sh":                         {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkReviewWaiting/sh":                   {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkSettlementFailing/sh":               {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkSweeperStalled/sh":                  {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkReconcilerStalled/sh":               {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkAdmissionUnknown/sh":                {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkAdmissionSlow/sh":                   {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkPoolExhausted/sql":                  {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkWebhookDisabled/sh":                 {1, "TestRunbookLooks"},
	"docs/runbook.md/EarmarkLateCommits/sh":                     {1, "TestRunbookLooks"},
	"docs/guarantees.md/Chaos/sh":                               {1, "takes half an hour; the short form is in test/chaos"},
	"docs/performance.md/Through the gateway/sh":                {1, "TestQuick of the bench module runs the scenario"},
	"docs/performance.md/Usage reports/sh":                      {1, "a benchmark"},
	"docs/performance.md/Webhooks/sh":                           {1, "TestDeadWebhookHoldsUpNobody is its short form"},
	"docs/performance.md/Run it/sh":                             {1, "is what the tests of the bench module do"},
}

func TestEveryExampleIsCovered(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for _, document := range append(glob(t, "docs/*.md"), "README.md") {
		switch document {
		case "docs/migrating.md", "docs/ai.md": // examples/migrating; usage and pricing
			continue
		}
		for _, b := range blocksOf(t, document) {
			key := document + "/" + b.section + "/" + b.language
			require.Contains(t, covered, key, "an example that no test runs:\n%s", b.text)
			seen[key]++
		}
	}
	for key, entry := range covered {
		require.Equal(t, entry.blocks, seen[key], "blocks of %s; %s has to run a new one", key, entry.by)
	}
}

// glob lists files of the repository, by their paths in it.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	require.NoError(t, err)
	require.NotEmpty(t, paths, pattern)
	for i, path := range paths {
		relative, err := filepath.Rel(root, path)
		require.NoError(t, err)
		paths[i] = filepath.ToSlash(relative)
	}
	return paths
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]*)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// Links inside of the repository lead to a file or a folder, and to a heading of the file.
func TestLinks(t *testing.T) {
	t.Parallel()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		require.NoError(t, err)
		return string(text)
	}
	anchors := func(text string) []string {
		var found []string
		for _, match := range heading.FindAllStringSubmatch(text, -1) {
			slug := notSlug.ReplaceAllString(strings.ToLower(match[1]), "")
			found = append(found, strings.ReplaceAll(slug, " ", "-"))
		}
		return found
	}
	for _, document := range slices.Concat(glob(t, "*.md"), glob(t, "docs/*.md"), glob(t, "docs/decisions/*.md"), glob(t, "findings/*.md"), glob(t, ".github/*.md"),
		glob(t, "clients/*/*.md"), glob(t, "test/conformance/*.md")) {
		text := read(document)
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(match[1], "://") || strings.HasPrefix(match[1], "mailto:") {
				continue
			}
			target, anchor, _ := strings.Cut(match[1], "#")
			path := document
			if target != "" {
				path = pathpkg.Join(pathpkg.Dir(document), target)
			}
			_, err := os.Stat(filepath.Join(root, filepath.FromSlash(path)))
			require.NoError(t, err, "%s: %s", document, match[1])
			if anchor != "" {
				require.Contains(t, anchors(read(path)), anchor, "%s: %s", document, match[1])
			}
		}
	}
}

// requireParts checks that the parts of a shown text, which is cut at every "…",
// come in that order. Line ends and spaces do not count.
func requireParts(t *testing.T, shown, got string) {
	t.Helper()
	squeeze := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", "")), "") }
	parts := strings.Split(squeeze(shown), "…")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	require.Regexp(t, "^"+strings.Join(parts, ".*?")+"$", squeeze(got))
}

// bash runs a script against the stack, with the earmark binary as bin/earmark, and
// it and temporal on the PATH.
func bash(t *testing.T, s *stack.Stack, server *stack.Server, script string) string {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.Symlink(stack.Binary(t), filepath.Join(dir, "bin", "earmark")))
	require.NoError(t, os.Symlink(temporalCLI(t), filepath.Join(dir, "bin", "temporal")))
	require.NoError(t, os.Symlink(filepath.Join(root, "examples"), filepath.Join(dir, "examples")))
	script = strings.NewReplacer("http://127.0.0.1:8080", server.URL, "/tmp/", dir+"/").Replace(script)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(s.Env(), "EARMARK_URL="+server.URL, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", script, out)
	return string(out)
}

// walk runs a document's scripts in one shell, as a reader does: what one step sets, the
// next one uses. Each script is followed by the answer that the document shows.
func walk(t *testing.T, document string, sections ...string) {
	t.Helper()
	walkOn(t, stack.New(t, stack.Options{}), document, sections...)
}

func walkOn(t *testing.T, s *stack.Stack, document string, sections ...string) {
	t.Helper()
	// The links in answers are those of earmark dev.
	server := s.Serve("--ui-url", "http://127.0.0.1:8233").Ready()
	var scripts, answers []string
	for _, b := range blocksOf(t, document) {
		switch {
		case len(sections) > 0 && !slices.Contains(sections, b.section):
		case b.language == "sh":
			require.Len(t, answers, len(scripts), "a script without an answer:\n%s", b.text)
			scripts = append(scripts, b.text)
		default:
			answers = append(answers, b.text)
			require.Len(t, scripts, len(answers), "an answer without a script:\n%s", b.text)
		}
	}
	require.Len(t, answers, len(scripts))
	require.NotEmpty(t, scripts)
	const mark = "=== next step ==="
	out := strings.Split(bash(t, s, server, strings.Join(scripts, "\necho '"+mark+"'\n")), mark)
	for i, answer := range answers {
		requireParts(t, strings.ReplaceAll(answer, "/namespaces/default/", "/namespaces/"+s.Namespace+"/"), out[i])
	}
}

func TestReadmeWalk(t *testing.T) {
	t.Parallel()
	walk(t, "README.md", "The first reservation")
}

// The three commands bring up a server that speaks TLS and asks for keys, beside what earmark dev runs. Here a stack
// runs that, and the server has another port.
func TestReadmeTLSAndKeys(t *testing.T) {
	t.Parallel()
	const section = "TLS and keys in three commands"
	s := stack.New(t, stack.Options{Keys: true})
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Dir(stack.Binary(t)), filepath.Join(dir, "bin")))
	run := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir, cmd.Env = dir, s.Env()
		out, err := cmd.Output()
		return string(out), err
	}
	script := strings.ReplaceAll(with(blocksOf(t, "README.md"), section, "sh")[0], "$(bin/earmark dev --print-database-url)", s.DatabaseURL)
	commands := strings.Split(strings.TrimSpace(script), "\n")
	require.Len(t, commands, 3)
	for _, command := range commands[:2] {
		_, err := run(command)
		require.NoError(t, err, command)
	}
	flags, found := strings.CutPrefix(strings.ReplaceAll(commands[2], `"`, ""), "bin/earmark serve --addr 127.0.0.1:8443 ")
	require.True(t, found, commands[2])
	server := s.Serve(strings.Fields(strings.ReplaceAll(flags, "tls.", dir+"/tls."))...)

	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	call := regexp.MustCompile("`(curl --cacert [^`]+)`").FindStringSubmatch(string(readme))[1]
	_, port, _ := strings.Cut(server.URL, "127.0.0.1:")
	call = strings.ReplaceAll(call, "8443", port)
	out, err := run(call)
	require.NoError(t, err, call)
	require.Contains(t, out, `{"tenant":"default","role":"admin"`)
	out, err = run(strings.ReplaceAll(call, "Bearer", "Barer"))
	require.NoError(t, err)
	require.Contains(t, out, `"status":401`)
	_, err = run(strings.ReplaceAll(call, "--cacert tls.crt", ""))
	require.Error(t, err, "nobody else vouches for the certificate")
}

func TestHTTPGuide(t *testing.T) {
	t.Parallel()
	walk(t, "docs/http.md")
}

// A model's name, and a response of each provider.
func TestAIGuide(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	price := func(provider, model, input, output, cached string) pricing.Entry {
		return pricing.Entry{Provider: provider, Model: model, Prices: pricing.Prices{Rates: pricing.Rates{
			pricing.Input: pricing.PerMillion(input), pricing.Output: pricing.PerMillion(output), pricing.CacheRead: pricing.PerMillion(cached)}}}
	}
	entries, err := json.Marshal(map[string]any{"entries": []pricing.Entry{
		price("openai", "gpt-5", "1.25", "10", "0.125"), price("anthropic", "claude-sonnet-4-5", "3", "15", "0.3"),
		price("google", "gemini-2.5-pro", "1.25", "10", "0.31"), price("xai", "grok-4", "3", "15", "0.75"), price("deepseek", "deepseek-chat", "0.28", "1.1", "0.028"),
		price("groq", "llama-3.3-70b-versatile", "0.59", "0.79", "0.59"), price("mistral", "mistral-large-latest", "2", "6", "2"), price("cohere", "command-a", "2.5", "10", "2.5"),
	}})
	require.NoError(t, err)
	s.Exec("SELECT earmark.add_price_version(p_after => 0, p_tenant => NULL, p_prices => $1, p_source => 'the guide', p_actor => 'operator:alice', p_reason => '')", string(entries))
	walkOn(t, s, "docs/ai.md", "From a model's name to the bill")
}

func TestReplay(t *testing.T) {
	t.Parallel()
	s, server, _ := setup(t)
	script := with(blocksOf(t, "docs/cli.md"), "Replay real traffic", "sh")[0]
	out := bash(t, s, server, strings.ReplaceAll(script, "--speed 20", "--speed 20 --rows 100"))
	require.Equal(t, 2, strings.Count(out, "\nPASS"), out)
}

func TestOwnServices(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true, Unaudited: true})
	script := with(blocksOf(t, "docs/production.md"), "Deploy", "sh")[0]
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		command, _, _ := strings.Cut(line, "#")
		words := strings.Fields(command)
		switch {
		case words[0] == "export": // the stack's own environment names the same
			for _, assignment := range words[1:] {
				name, _, _ := strings.Cut(assignment, "=")
				require.Contains(t, strings.Join(s.Env(), "\n"), name+"=")
			}
		case words[1] == "migrate":
			require.Contains(t, s.MustRun(words[1:]...), "applied")
		case words[1] == "key":
			arguments, _, _ := strings.Cut(command, ">")
			require.Regexp(t, "^emk_", s.MustRun(strings.Fields(arguments)[1:]...))
		case words[1] == "serve":
			s.Serve().Ready()
		case words[1] == "worker":
			s.Worker().AwaitLog("Started Worker")
		default:
			require.Fail(t, "a line that nothing runs", line)
		}
	}
}

// frames put the Go blocks of a document into programs, by their order in it.
var frames = map[string][]string{
	"README.md": {`package main
func main() {}
func run(earmarks *client.Client) (*http.Client, error) {
%s
return &http.Client{Transport: guard}, err }
var _ = run`},
	"docs/events.md": {`package main
func main() {}
func received(request *http.Request, body []byte, secret string) error {
%s
return nil }
var _ = received`},
	"docs/client.md": {`package main
%s
var _ earmark.Amounts
var _ *client.Client
func main() {}`, `package main
func main() { if err := run(); err != nil { panic(err) } }
func callModel(context.Context) (int64, error) { return 7, nil }
func run() error { ctx := context.Background()
%s
return err }`, `package main
func main() {}
func work(prompt string) (earmark.Amounts, error) {
%s
return nil, nil }
var _ = client.ErrNothingSent`, `package main
func main() {}
func scopeOf(userID string) (string, error) {
%s
return scope, err }
var _ = scopeOf`, `package main
func main() {}
func streamModel(context.Context) iter.Seq2[string, error] { return nil }
func send(string) {}
func run(ctx context.Context, earmarks *client.Client, request earmark.ReservationRequest, promptTokens, totalTokens int64) error {
var err error
%s
return err }`, `package main
func main() {}
func callModel(context.Context) (json.RawMessage, error) { return nil, nil }
func run(ctx context.Context, earmarks *client.Client, request earmark.ReservationRequest) error {
var err error
%s
return err }`, `package main
func main() {}
func run(earmarks *client.Client) error {
%s
_, err = models.Get("")
return err }
var _ = run`, `package main
func main() {}
func streamModel(context.Context) iter.Seq[string] { return nil }
func userOf(*http.Request) string { return "u1" }
var mux = http.NewServeMux()
var earmarks *client.Client
%s`, `package main
func main() {}
func run(router *gin.Engine, earmarks *client.Client, ask func(*gin.Context) (middleware.Ask, error), usedTokens int64) {
%s
}`},
}

// packages are what the programs may import.
var packages = map[string]string{
	"context.": "context", "errors.": "errors", "http.": "net/http", "io.": "io", "json.": "encoding/json", "iter.": "iter",
	"earmark.": "github.com/earmark-dev/earmark", "client.": "github.com/earmark-dev/earmark/client",
	"middleware.": "github.com/earmark-dev/earmark/client/middleware", "ginmiddleware.": "github.com/earmark-dev/earmark/client/ginmiddleware",
	"gin.": "github.com/gin-gonic/gin", "standardwebhooks.": "github.com/standard-webhooks/standard-webhooks/libraries/go",
}

var (
	importLine = regexp.MustCompile(`(?m)^import "[^"]*"\n`)
	routeLine  = regexp.MustCompile(`(?m)^mux\.Handle\(.*$`)
)

// program makes a Go file of a block: what a reader's editor would add is added.
func program(frame, code string) string {
	code = importLine.ReplaceAllString(code, "")
	code = routeLine.ReplaceAllString(code, "func init() {\n$0\n}")
	source := fmt.Sprintf(frame, code)
	if strings.Contains(code, "import (") {
		return source
	}
	var imports strings.Builder
	for selector, path := range packages {
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(selector)).MatchString(source) {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
	}
	return strings.Replace(source, "package main\n", "package main\n"+imports.String(), 1)
}

// Every Go block builds, and the first guard of each document does what it says.
func TestGoSnippets(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	earmarks, err := client.New(server.URL)
	require.NoError(t, err)
	limit := int64(1000) // as in the README, which the documents build on
	_, err = earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)

	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	// Inside of the main module, and out of sight of ./...
	dir, err := os.MkdirTemp(filepath.Join(root, "examples"), "_snippets")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	for document, expected := range frames {
		i := 0
		for _, b := range blocksOf(t, document) {
			if b.language != "go" {
				continue
			}
			require.Less(t, i, len(expected), "%s has a new Go block", document)
			folder := filepath.Join(dir, fmt.Sprintf("%s%d", strings.NewReplacer("/", "", ".", "").Replace(document), i))
			require.NoError(t, os.Mkdir(folder, 0o700))
			source := strings.ReplaceAll(program(expected[i], b.text), "http://127.0.0.1:8080", server.URL)
			require.NoError(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(source), 0o600))
			if strings.Contains(b.text, ".Do(ctx") {
				run(t, s, server, folder, "go", "run", "main.go")
				requireCommitted(t, server, "", earmark.Amounts{"tokens": 7})
			} else {
				run(t, s, server, folder, "go", "build", "-o", os.DevNull, "main.go")
			}
			i++
		}
		require.Len(t, expected, i, "%s has fewer Go blocks", document)
	}
}

var shortID = regexp.MustCompile(`\brsv_[a-z2-7]+`)

// masks take out of a session what differs from run to run, and between a terminal,
// which the document shows, and a pipe: there ids and times are in full.
var masks = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`\b(rsv|bud)_[a-z2-7]+…?`), "$1_ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| [A-Z]{3,4})?`), "TIME"},
	{regexp.MustCompile(`\b\d+[smhd] ago`), "TIME"},
	{regexp.MustCompile(` ?\((now|in [0-9smhd ]+|[0-9smhd ]+ ago)\)`), ""},
}

// unmistakable is a session's text with masks, and with columns of any width.
func unmistakable(text string) []string {
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.mask)
	}
	return strings.Fields(text)
}

// The sessions of docs/cli.md run as they stand, and answer what the document says.
func TestShellSessions(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	env := append(s.Env(), "EARMARK_URL="+server.URL)
	reservation := ""
	for _, section := range []string{"Budgets", "Reservations"} {
		for _, session := range with(blocksOf(t, "docs/cli.md"), section, "console") {
			for _, step := range strings.Split(strings.TrimPrefix(session, "$ "), "\n$ ") {
				command, shown, _ := strings.Cut(step, "\n")
				command = shortID.ReplaceAllString(command, reservation)
				words := strings.Fields(command)
				require.Equal(t, "earmark", words[0])
				result := stack.RunCommand(t, env, stack.Binary(t), words[1:]...)
				code := 0
				if strings.HasPrefix(shown, "earmark: denied") {
					code = 3
				}
				require.Equal(t, code, result.Code, "%s: %s", command, result.Stderr)
				require.Equal(t, unmistakable(shown), unmistakable(result.Stdout+result.Stderr), command)
				if id := shortID.FindString(result.Stdout); id != "" {
					reservation = id
				}
			}
		}
	}
}

func TestShellScript(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	script := with(blocksOf(t, "docs/cli.md"), "Exit codes", "sh")[0]
	bash(t, s, server, "earmark budget create acme tokens 1000 --quiet\nset +e\nrequest=r1\ncall_the_model() { echo 450; }\n"+script)
	requireCommitted(t, server, "", earmark.Amounts{"tokens": 450})
	out := bash(t, s, server, "set +e\nrequest=r2\n"+script)
	require.Contains(t, out, "over budget")
}
