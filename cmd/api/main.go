// Command api is the whole program: the server with its development mode, and the operator's commands.
//
// Every option is a flag and an environment variable; --help names both. The exit code says what happened:
//
//	0  done, or stopped as asked
//	1  failed
//	2  a flag or an environment variable is wrong
//	3  the database is not migrated as far as this program needs
//	4  the database cannot be reached
//	5  the address to listen on is taken
//	6  stopped as asked, but some requests were cut off at the deadline
//	7  somebody else is at work on it: a rebuild, a server, or one who was asked before
//	8  the tables that were compared differ
//	9  a rebuild came to an event that it cannot apply
//	10 stopped as asked before it was done; the same command goes on
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit codes, which the package comment tells the users of.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitNotMigrated
	exitUnreachable
	exitAddressTaken
	exitCutOff
	exitBusy
	exitDiffers
	exitPoison
	exitStopped
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// commands is the command line.
type commandLine struct {
	Dev         devCommand         `cmd:"" help:"Run for development: a private Postgres unless DATABASE_URL is set, migrated, with GraphiQL."`
	Serve       serveCommand       `cmd:"" help:"Run the server. Refuses to start when the database is not migrated."`
	Migrate     migrateCommand     `cmd:"" help:"Move the database's schema."`
	Status      statusCommand      `cmd:"" help:"Say how far everything that follows the log is behind it. Ends with 1 when something needs help."`
	Doctor      doctorCommand      `cmd:"" help:"Examine the log, the checkpoints and the server, and say what to do. Ends with 1 when somebody has to do something."`
	Checkpoints checkpointsCommand `cmd:"" help:"Set the checkpoints of policies and relays right."`
	Projections projectionsCommand `cmd:"" help:"Look at the views' projections and rebuild them."`
	Parked      parkedCommand      `cmd:"" help:"Look after streams whose events wait since one of them could not be handled."`
	Outbox      outboxCommand      `cmd:"" help:"Look after outbox messages that could not be delivered."`
	Inbox       inboxCommand       `cmd:"" help:"Look after messages from outside."`
	Postgres    postgresCommand    `cmd:"" help:"Look after the private Postgres of this checkout."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// output is where commands print their results; messages for people go to standard error, through the log.
type output struct{ io.Writer }

func main() {
	ctx, cancel := untilSignal()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

// untilSignal is a context that ends with the first SIGINT or SIGTERM. The second one then kills the process at once,
// as it would without this.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var parsed commandLine
	exited := -1
	parser, err := kong.New(&parsed,
		kong.Name("api"),
		kong.Description("Headrace: commands, events and views on Postgres, with GraphQL in front."),
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(output{stdout}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "api:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help has been printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "api: %v\n     see api --help\n", err)
		return exitUsage
	}
	err = command.Run()
	var exit *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		fmt.Fprintln(stderr, "api:", err)
		return exit.code
	default:
		fmt.Fprintln(stderr, "api:", err)
		return exitFailed
	}
}

type versionCommand struct{}

func (versionCommand) Run(out output) error {
	_, err := fmt.Fprintln(out, "headrace", version())
	return err
}

// version is that of the module, with the commit when the binary was built in a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			v += " " + setting.Value[:12]
		}
	}
	return v + " " + info.GoVersion
}
