// Prints what github.com/robfig/cron v1.2.0, with which Kubeflow reads schedules, makes of an
// expression: lines of START<tab>EXPRESSION in, five epochs (0: never) or "error" a line out.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		start, expression, _ := strings.Cut(lines.Text(), "\t")
		fmt.Println(next(start, expression))
	}
}

func next(start string, expression string) string {
	schedule, err := cron.Parse(expression)
	if err != nil {
		return "error"
	}
	epoch, _ := strconv.ParseInt(start, 10, 64)
	after, epochs := time.Unix(epoch, 0).UTC(), []string{}
	for len(epochs) < 5 {
		if after = schedule.Next(after); after.IsZero() {
			return strings.Join(append(epochs, "0"), " ")
		}
		epochs = append(epochs, strconv.FormatInt(after.Unix(), 10))
	}
	return strings.Join(epochs, " ")
}
