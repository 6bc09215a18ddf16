// Command cluster is Kubernetes in one binary, for the tests: etcd, API server, controller manager, scheduler and
// kubelet, each as a command of its own with the flags of the real one, which it is.
//
//	cluster etcd DIR URL PEERURL
//	cluster kube-apiserver|kube-controller-manager|kube-scheduler|kubelet FLAGS
//
// It has a module of its own, because Kubernetes' wants many others at fixed versions.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	commands := map[string]func() *cobra.Command{
		"etcd":                    etcd,
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllers.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "cluster: say which part to run; the comment in main.go lists them")
		os.Exit(2)
	}
	part := commands[os.Args[1]]
	os.Args = os.Args[1:]
	os.Exit(cli.Run(part()))
}

// etcd is a server of one member that keeps nothing for long.
func etcd() *cobra.Command {
	return &cobra.Command{Use: "etcd DIR URL PEERURL", Args: cobra.ExactArgs(3), RunE: func(_ *cobra.Command, args []string) error {
		cfg := embed.NewConfig()
		cfg.Dir, cfg.UnsafeNoFsync = args[0], true
		for i, list := range []*[]url.URL{&cfg.ListenClientUrls, &cfg.ListenPeerUrls} {
			u, err := url.Parse(args[i+1])
			if err != nil {
				return err
			}
			*list = []url.URL{*u}
		}
		cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = cfg.ListenClientUrls, cfg.ListenPeerUrls
		cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
		server, err := embed.StartEtcd(cfg)
		if err != nil {
			return err
		}
		defer server.Close()
		return <-server.Err()
	}}
}
