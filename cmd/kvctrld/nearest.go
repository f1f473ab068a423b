package main

import "fmt"

// unknownKey is the error for a key that no setting has; it names the nearest one.
func unknownKey(key string) error {
	best, distance := "", 1<<30
	for _, o := range serveOptions {
		if d := editDistance(dashed(key), o.name); d < distance {
			best, distance = o.name, d
		}
	}
	return fmt.Errorf("unknown setting %q; the nearest is %q", key, best)
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
