package words

import "strings"

// Nearest returns the candidate that is at most three letters away from name (see Distance), or goes on where it ends; or "".
func Nearest(name string, candidates []string) string {
	best, at := 4, ""
	for _, c := range candidates {
		if len(name) >= 8 && strings.HasPrefix(c, name) { // BALENA_USER
			return c
		}
		if d := Distance(name, c); d < best {
			best, at = d, c
		}
	}
	return at
}

// Distance is how many letters must be changed, added or removed to make b of a.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
