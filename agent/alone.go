package agent

// alone is a set of steps that can be part of a batch, and could not be.
type alone uint8

func (s alone) has(k kind) bool { return s&aloneIn(k) != 0 }

// after returns the set once a step has ended: with turn.ErrAlone, or with success.
func (s alone) after(k kind, failed bool) alone {
	if failed {
		return s | aloneIn(k)
	}
	return s &^ aloneIn(k)
}

func aloneIn(k kind) alone {
	switch k {
	case findKey:
		return 1
	case extendKey:
		return 2
	case revokeOld:
		return 4
	}
	return 0
}
