import { UsageError } from './arguments.ts'
import { standardOutputs, type Outputs } from './screen.ts'

/** A command: gets what stands behind its name, and answers the exit code. */
export type Command = (args: readonly string[], outputs: Outputs) => Promise<number>

interface Entry {
  readonly summary: string
  /** Loaded when it is used, so that a short command does not wait for what another one needs. */
  readonly load: () => Promise<Command>
}

const COMMANDS: Readonly<Record<string, Entry>> = Object.freeze({
  demo: {
    summary: 'show everything in two minutes: a run, a pause, a cancel, two kills, and the proof',
    load: async () => (await import('./demo.ts')).demo,
  },
  up: { summary: 'bring up the local stack and stay (npm run dev)', load: async () => (await import('./up.ts')).up },
  run: {
    summary: 'start a run inside a budget envelope and follow it',
    load: async () => (await import('./run.ts')).run,
  },
  map: {
    summary: 'ask one prompt about each row of a CSV or JSON lines file',
    load: async () => (await import('./map.ts')).map,
  },
  rows: {
    summary: 'write what became of the rows of a run over rows',
    load: async () => (await import('./rows.ts')).rows,
  },
  exec: {
    summary: 'run a command whose model calls are paid from an envelope of its own',
    load: async () => (await import('./exec.ts')).exec,
  },
  report: { summary: 'print what a run cost, and why', load: async () => (await import('./report.ts')).report },
  pause: {
    summary: 'pause a run: what is in flight finishes, nothing begins',
    load: async () => (await import('./run-actions.ts')).pause,
  },
  resume: { summary: 'let a paused run go on', load: async () => (await import('./run-actions.ts')).resume },
  'top-up': {
    summary: "move more money into a run's envelope",
    load: async () => (await import('./run-actions.ts')).topUp,
  },
  cancel: {
    summary: 'end a run now, or let it deliver first',
    load: async () => (await import('./run-actions.ts')).cancel,
  },
  end: {
    summary: 'end an external run whose work is done',
    load: async () => (await import('./run-actions.ts')).end,
  },
  answer: { summary: "answer a run's question", load: async () => (await import('./run-actions.ts')).answer },
  rerun: { summary: 'start a run of the same request', load: async () => (await import('./run-actions.ts')).rerun },
  fork: {
    summary: 'start a run of the same request that uses stored answers again',
    load: async () => (await import('./run-actions.ts')).fork,
  },
  reconcile: {
    summary: 'resolve what dead processes left open, or take a lost cost back',
    load: async () => (await import('./reconcile.ts')).reconcile,
  },
  routes: {
    summary: 'show the health of the routes, close a circuit, trust a route again',
    load: async () => (await import('./routes.ts')).routes,
  },
  providers: {
    summary: 'list, add, change or remove where models are asked',
    load: async () => (await import('./providers.ts')).providers,
  },
  secrets: {
    summary: 'print a new key for secrets, or show what each key encrypts',
    load: async () => (await import('./secrets.ts')).secrets,
  },
  schedules: {
    summary: 'start runs by the clock: list, add, pause, resume or remove schedules',
    load: async () => (await import('./schedules.ts')).schedules,
  },
  catalog: {
    summary: 'check a catalog, put it in force, or print the one in force',
    load: async () => (await import('./catalog.ts')).catalog,
  },
  invoice: {
    summary: "compare a provider's invoice with what was booked",
    load: async () => (await import('./invoice.ts')).invoice,
  },
  margins: {
    summary: 'print what was sold, what providers bill for it, and what is left',
    load: async () => (await import('./margins.ts')).margins,
  },
  prices: {
    summary: 'compare a public price list with the price book, or add what differs',
    load: async () => (await import('./prices.ts')).prices,
  },
  statement: {
    summary: "write a wallet's statement of a month, as CSV or JSON",
    load: async () => (await import('./statement.ts')).statement,
  },
  verify: { summary: 'recompute the whole ledger and compare', load: async () => (await import('./verify.ts')).verify },
})

const EXIT_FAILED = 1
const EXIT_USAGE = 2

// Whoever reads our output may stop reading, as `head` does, and a terminal may be closed: the command goes on to its end.
for (const output of [process.stdout, process.stderr]) {
  output.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error
  })
}
process.exitCode = await main(process.argv.slice(2), standardOutputs(process.env))

async function main([name, ...args]: readonly string[], outputs: Outputs): Promise<number> {
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    outputs.out.line(overview())
    return name === undefined ? EXIT_USAGE : 0
  }
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (!entry) {
    outputs.err.line(`purser: there is no command "${name}". The commands are ${Object.keys(COMMANDS).join(', ')}.`)
    return EXIT_USAGE
  }
  try {
    return await (
      await entry.load()
    )(args, outputs)
  } catch (error) {
    if (error instanceof UsageError) {
      outputs.err.line(`purser ${name}: ${error.message}\n\n${error.usage}`)
      return EXIT_USAGE
    }
    outputs.err.line(`purser ${name}: ${error instanceof Error ? error.message : String(error)}`)
    return EXIT_FAILED
  }
}

function overview(): string {
  const names = Object.keys(COMMANDS)
  const width = Math.max(...names.map((name) => name.length))
  const lines = names.map((name) => `  ${name.padEnd(width)}  ${COMMANDS[name]?.summary ?? ''}`)
  return [
    'Purser runs long AI tasks that cannot overspend.',
    '',
    'Usage: purser COMMAND [OPTIONS]',
    '',
    ...lines,
    '',
    'purser COMMAND --help tells more about one of them.',
  ].join('\n')
}
