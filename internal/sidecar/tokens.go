package sidecar

import (
	"slices"
	"sync"

	"github.com/balena-injector/injector/key"
)

// vars collects what the command's environment is to have.
type vars struct {
	mu     sync.Mutex
	hand   func([]string)
	tokens map[*keeper]key.Secret
	wait   int // keys that are not ready yet
}

func newVars(a *App, hand func([]string)) *vars {
	v := &vars{hand: hand, tokens: map[*keeper]key.Secret{}, wait: len(a.keepers)}
	for _, k := range a.keepers {
		k.told = append(k.told, func(p key.Publication, _ bool) { v.set(k, p.Key.Secret) })
	}
	return v
}

// set notes a key's token. Once all are ready, another token is handed over at once.
func (v *vars) set(k *keeper, token key.Secret) {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := v.tokens[k].Equal(token)
	v.tokens[k] = token
	if v.wait == 0 && !same {
		v.hand(v.list())
	}
}

// ready counts a key that can be relied on.
func (v *vars) ready() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wait--; v.wait == 0 {
		v.hand(v.list())
	}
}

func (v *vars) list() []string {
	var list []string
	for k, token := range v.tokens {
		for _, name := range k.settings.Variables {
			list = append(list, name+"="+token.Reveal())
		}
	}
	slices.Sort(list)
	return list
}
