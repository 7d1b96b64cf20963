// Command apiserver runs etcd and kube-apiserver in one process, for the tests.
//
//	apiserver --etcd-data DIR --etcd-client URL --etcd-peer URL -- FLAGS-OF-KUBE-APISERVER
//
// Keys, certificates and the flags of kube-apiserver are its caller's. SIGTERM ends both, kube-apiserver first.
package main

import (
	"flag"
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	var store etcd
	flag.StringVar(&store.data, "etcd-data", "", "folder of etcd's data")
	flag.StringVar(&store.client, "etcd-client", "", "URL that etcd serves clients on")
	flag.StringVar(&store.peer, "etcd-peer", "", "URL that etcd would serve peers on")
	flag.Parse()
	os.Exit(run(store, flag.Args()))
}

// run gives the exit code: main ends the process, and deferred calls would be lost there.
func run(store etcd, flags []string) int {
	server, err := store.start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "apiserver: etcd:", err)
		return 1
	}
	defer server.Close()
	command := app.NewAPIServerCommand()
	command.SetArgs(append(flags, "--etcd-servers="+store.client))
	return cli.Run(command)
}
