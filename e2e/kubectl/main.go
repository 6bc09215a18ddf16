// Command kubectl is Kubernetes' own command, at the version in go.mod: the tests build it, so that they need none
// on the machine and use the same everywhere.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() { os.Exit(cli.Run(cmd.NewDefaultKubectlCommand())) }
