// Command temporal is a Temporal server that is newer than the one of the other tests, for what that one cannot do, such
// as pausing a workflow. The command line of that release is no module that others can build, so this program takes the
// arguments of `temporal server start-dev` that the tests give. It keeps its data in memory.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	temporallog "go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
)

const (
	host        = "127.0.0.1"
	clusterName = "active"
	namespace   = "default"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	port, settings, err := parse(args)
	if err != nil {
		return err
	}
	serverConfig, err := newConfig(port)
	if err != nil {
		return err
	}
	store := serverConfig.Persistence.DataStores[sqlite.PluginName].SQL
	if err := createNamespace(store); err != nil {
		return err
	}
	addresses := map[primitives.ServiceName]static.Hosts{}
	for name, service := range serverConfig.Services {
		addresses[primitives.ServiceName(name)] = static.SingleLocalHost(net.JoinHostPort(host, strconv.Itoa(service.RPC.GRPCPort)))
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(serverConfig),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(addresses),
		temporal.WithLogger(temporallog.NewZapLogger(temporallog.BuildZapLogger(temporallog.Config{Stdout: true, Level: "warn"}))),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithDynamicConfigClient(settings),
		temporal.InterruptOn(temporal.InterruptCh()),
	)
	if err != nil {
		return err
	}
	return server.Start()
}

// parse reads the arguments of `temporal server start-dev` that matter here.
func parse(args []string) (port int, settings dynamicconfig.StaticClient, err error) {
	settings = dynamicconfig.StaticClient{dynamicconfig.WorkflowPauseEnabled.Key(): true}
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "server", "start-dev", "--headless":
		case "--port":
			i++
			if port, err = strconv.Atoi(args[i]); err != nil {
				return 0, nil, err
			}
		case "--dynamic-config-value":
			i++
			name, text, _ := strings.Cut(args[i], "=")
			settings[dynamicconfig.MakeKey(name)] = value(text)
		default: // such as --ip; all of them have a value
			i++
		}
	}
	return port, settings, nil
}

func value(text string) any {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	if b, err := strconv.ParseBool(text); err == nil {
		return b
	}
	return text
}

func newConfig(frontendPort int) (*config.Config, error) {
	services := map[string]config.Service{}
	for _, name := range temporal.DefaultServices {
		port := frontendPort
		if name != string(primitives.FrontendService) {
			var err error
			if port, err = freePort(); err != nil {
				return nil, err
			}
		}
		services[name] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: host}}
	}
	return &config.Config{
		Global: config.Global{
			Membership: config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: host},
			Metrics:    &metrics.Config{},
		},
		Persistence: config.Persistence{
			DefaultStore: sqlite.PluginName, VisibilityStore: sqlite.PluginName, NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{sqlite.PluginName: {SQL: &config.SQL{
				PluginName: sqlite.PluginName, DatabaseName: fmt.Sprint(os.Getpid()),
				ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
			}}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: fmt.Sprintf("%s:%d", host, frontendPort), ClusterID: clusterName},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services:            services,
		Archival: config.Archival{
			History: config.HistoryArchival{State: "disabled"}, Visibility: config.VisibilityArchival{State: "disabled"},
		},
		PublicClient: config.PublicClient{HostPort: fmt.Sprintf("%s:%d", host, frontendPort)},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History: config.HistoryArchivalNamespaceDefaults{State: "disabled"}, Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
	}, nil
}

func createNamespace(store *config.SQL) error {
	created, err := sqliteschema.NewNamespaceConfig(clusterName, namespace, false, map[string]enumspb.IndexedValueType{})
	if err != nil {
		return err
	}
	return sqliteschema.CreateNamespaces(store, created)
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
