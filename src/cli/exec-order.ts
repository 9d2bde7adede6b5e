import { readArguments, UsageError } from './arguments.ts'
import { readCount, readPockets, readThresholds, type Pockets } from './order-values.ts'

export const USAGE = `Usage: purser exec --budget AMOUNT [OPTIONS] -- COMMAND [ARGUMENT...]

Runs a command whose model calls are paid from an envelope of its own, and never more. It is started where you stand, with
OPENAI_BASE_URL, OPENAI_API_KEY, ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set to a run that ends with it.

  --budget AMOUNT              the envelope, in USD of the direct balance
  --direct AMOUNT --credit AMOUNT
                               the same, for each balance
  --model NAME                 catalog model: OPENAI_MODEL and ANTHROPIC_MODEL are set to it
  --max-calls N --max-tokens N --max-seconds N
                               limits of the whole run; the last one is its deadline
  --max-prompt TOKENS          the longest prompt that one call may have
  --idle SECONDS               it ends when nothing was asked for so long, as after a crash (default: 3600)
  --clamp TOKENS               ask for less output, down to so many tokens, where the envelope cannot pay the worst case
  --threshold 50,80            tell when so many percent of the money are spent, as events
  --name TEXT                  what the run is known by (default: the command)
  --quiet                      neither a status line nor a report

On a terminal a line shows what is spent, held and left, and you are asked for more when the money ends. Elsewhere
requests are refused then (402), until somebody tops the run up. Ends with the code of the command, or by its signal; with
127 when there is no such command, 126 when it cannot be started, and 1 when no run could be opened.`

/** The API's limit on a run's name. */
const MAX_NAME_LENGTH = 200

/** What is to be run, and with how much. */
export interface ExecOrder {
  readonly command: readonly [string, ...string[]]
  readonly model: string | undefined
  readonly isQuiet: boolean
  /** What opens the run. */
  readonly request: Readonly<Record<string, unknown>> & { readonly envelope: { readonly pockets: Pockets } }
}

/** @throws UsageError */
export function readExecOrder(args: readonly string[]): ExecOrder | 'help' {
  const text = { type: 'string' } as const
  // What follows the first -- is the command's own, whatever it looks like.
  const end = args.indexOf('--')
  const { values } = readArguments(end === -1 ? args : args.slice(0, end), {
    options: {
      budget: text,
      direct: text,
      credit: text,
      model: text,
      'max-calls': text,
      'max-tokens': text,
      'max-seconds': text,
      'max-prompt': text,
      idle: text,
      clamp: text,
      threshold: text,
      name: text,
      quiet: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
  })
  if (values.help) return 'help'
  const [program, ...rest] = end === -1 ? [] : args.slice(end + 1)
  if (!program) throw new UsageError('the command is missing: write it behind --, as in -- npm start.', USAGE)
  const pockets = readPockets(values, USAGE)
  if (!pockets) throw new UsageError('--budget is missing: nothing is spent without a limit.', USAGE)
  const command = [program, ...rest] as const
  return {
    command: [program, ...rest],
    model: values.model,
    isQuiet: values.quiet === true,
    request: {
      envelope: { pockets },
      name: printable(values.name ?? command.join(' ')),
      ...choicesOf(values),
    },
  }
}

function choicesOf(values: Readonly<Partial<Record<string, string | boolean>>>): Readonly<Record<string, unknown>> {
  const textOf = (name: string): string | undefined => {
    const value = values[name]
    return typeof value === 'string' ? value : undefined
  }
  const count = (name: string) => readCount(`--${name}`, textOf(name), USAGE)
  const floorTokens = count('clamp')
  const limits = present({
    calls: count('max-calls'),
    tokens: count('max-tokens'),
    seconds: count('max-seconds'),
    inputTokensPerCall: count('max-prompt'),
  })
  return present({
    model: textOf('model'),
    idleSeconds: count('idle'),
    thresholds: readThresholds(textOf('threshold'), USAGE),
    tight: floorTokens === undefined ? undefined : { policy: 'clamp', floorTokens },
    limits: Object.keys(limits).length > 0 ? limits : undefined,
  })
}

/** Without what is not given. */
function present(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/** As one line, which is all that a name may be. */
function printable(name: string): string | undefined {
  const line = name.replaceAll(/[\p{Cc}\p{Cs}]+/gu, ' ').trim()
  return line === '' ? undefined : line.slice(0, MAX_NAME_LENGTH).toWellFormed()
}
