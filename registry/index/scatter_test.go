package index

import "testing"

// Loading keys in slot order made restoring quadratic; scatter is what prevents it.
func TestScatter_VisitsAllPlacesFarApart(t *testing.T) {
	for n := 1; n < 3000; n++ {
		step, seen := scatter(n), make([]bool, n)
		for k, i := 0, 0; k < n; k, i = k+1, (i+step)%n {
			if seen[i] {
				t.Fatalf("n %d, step %d: place %d is visited twice", n, step, i)
			}
			seen[i] = true
		}
		if n > 64 && (step < n/3 || step > n-n/4) {
			t.Errorf("n %d: step %d keeps neighbours together", n, step)
		}
	}
}
