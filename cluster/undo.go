package cluster

import "errors"

// undoList takes back what a failed Open has done, in reverse.
type undoList struct{ steps []func() error }

func (u *undoList) add(f func() error) { u.steps = append(u.steps, f) }

func (u *undoList) run() error {
	var errs []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		errs = append(errs, u.steps[i]())
	}
	u.steps = nil
	return errors.Join(errs...)
}
