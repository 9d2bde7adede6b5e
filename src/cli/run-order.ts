import { BALANCE_CLASSES, ON_EXHAUSTED, type OnExhausted } from '#contracts/names.ts'
import { readArguments, UsageError } from './arguments.ts'
import { readCount, readPockets, readThresholds, type Pockets } from './order-values.ts'

export const USAGE = `Usage: purser run AGENT (--question TEXT | --input JSON) [OPTIONS]

  --question TEXT              research: what to find out
  --input JSON                 any agent: its input, or @FILE that has it; GET /agents says what each takes
  --sources FOLDER             documents to answer from (*.md, *.mdx, *.txt); without it the documentation of the
                               packages that are installed in this checkout
  --model NAME                 catalog model (default: research)
  --budget AMOUNT              the envelope, in USD of the direct balance (default: 0.05)
  --direct AMOUNT --credit AMOUNT
                               the same, for each balance
  --on-exhausted pause|downgrade|cancel
                               what to do when the envelope is empty (default: cancel)
  --downgrade-model NAME --downgrade-balance direct|credit
                               what a downgraded run goes on with: another catalog model, one balance, or both
  --after-downgrade pause|cancel
                               and what follows when that money ends too (default: cancel)
  --wrap-up PERCENT            of each balance, kept for delivering what is done when the run is stopped
  --max-calls N --max-tokens N --max-seconds N
                               limits of the whole run
  --max-prompt TOKENS          the longest prompt that one call may have
  --threshold 50,80            tell when so many percent of the money are spent
  --priority 1-5               1 is served first (default: 3)
  --pause-deadline SECONDS     how long it may stay paused before it ends (default: a day)
  --clamp TOKENS               ask for less output, down to so many tokens, where the envelope cannot pay the worst case
  --reuse-answers SECONDS      take the project's stored answers to the same requests that are no older, at no cost, and
                               let later runs take the answers of this one
  --dry-run                    say what would be done and what it would cost, and start nothing
  --json                       print one JSON document: the run and its report

Rows are asked with purser map. Ctrl-C cancels the run. Ends with 0 when the run completed, 3 when it is paused, and
1 otherwise.`

const DEFAULT_BUDGET = '0.05'

/** What the command line asks for. */
export interface Order {
  readonly agent: string
  /** Of an agent that answers from documents, or the whole input of any other. */
  readonly ask: { readonly question: string } | { readonly input: string }
  readonly sources: string | undefined
  readonly model: string
  readonly envelope: { readonly pockets: Pockets; readonly wrapUpPercent?: number }
  readonly onExhausted: OnExhausted
  readonly choices: Readonly<Record<string, unknown>>
  readonly isDryRun: boolean
  readonly isJson: boolean
}

/** @throws UsageError */
export function readOrder(args: readonly string[]): Order | 'help' {
  const text = { type: 'string' } as const
  const { values, positionals } = readArguments(args, {
    options: {
      question: text,
      input: text,
      sources: text,
      model: text,
      budget: text,
      direct: text,
      credit: text,
      'on-exhausted': text,
      'downgrade-model': text,
      'downgrade-balance': text,
      'after-downgrade': text,
      'wrap-up': text,
      'max-calls': text,
      'max-tokens': text,
      'max-seconds': text,
      'max-prompt': text,
      threshold: text,
      priority: text,
      'pause-deadline': text,
      clamp: text,
      'reuse-answers': text,
      'dry-run': { type: 'boolean' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) return 'help'
  const [agent] = positionals
  if (agent === undefined) throw new UsageError('the name of an agent is missing, such as research.', USAGE)
  const onExhausted = ON_EXHAUSTED.find((choice) => choice === (values['on-exhausted'] ?? 'cancel'))
  if (!onExhausted) throw new UsageError(`--on-exhausted is one of ${ON_EXHAUSTED.join(', ')}.`, USAGE)
  const wrapUpPercent = readCount('--wrap-up', values['wrap-up'], USAGE)
  return {
    agent,
    onExhausted,
    ask: readAsk(values),
    sources: values.sources,
    model: values.model ?? 'research',
    envelope: {
      pockets: readPockets(values, USAGE) ?? readPockets({ budget: DEFAULT_BUDGET }, USAGE) ?? [],
      ...(wrapUpPercent !== undefined && { wrapUpPercent }),
    },
    choices: readChoices(values, onExhausted),
    isDryRun: values['dry-run'] === true,
    isJson: values.json === true,
  }
}

function readAsk({ question, input, sources }: Values): Order['ask'] {
  if (typeof input === 'string') {
    if (question === undefined && sources === undefined) return { input }
    throw new UsageError('--input is the whole input: leave out --question and --sources.', USAGE)
  }
  if (typeof question === 'string' && question.trim() !== '') return { question }
  throw new UsageError('--question is missing, or --input for an agent of another kind.', USAGE)
}

type Values = Readonly<Partial<Record<string, string | boolean>>>

function readChoices(values: Values, onExhausted: OnExhausted): Readonly<Record<string, unknown>> {
  const count = (name: string): number | undefined => readCount(`--${name}`, textOf(values, name), USAGE)
  const floorTokens = count('clamp')
  const maxAgeSeconds = count('reuse-answers')
  const limits = present({
    calls: count('max-calls'),
    tokens: count('max-tokens'),
    seconds: count('max-seconds'),
    inputTokensPerCall: count('max-prompt'),
  })
  const downgrade = readDowngrade(values)
  if ((onExhausted === 'downgrade') !== (downgrade !== undefined)) {
    throw new UsageError('--on-exhausted downgrade goes with --downgrade-model, --downgrade-balance, or both.', USAGE)
  }
  return present({
    ...(floorTokens !== undefined && { tight: { policy: 'clamp', floorTokens } }),
    ...(maxAgeSeconds !== undefined && { reuse: { maxAgeSeconds } }),
    downgrade,
    thresholds: readThresholds(textOf(values, 'threshold'), USAGE),
    priority: count('priority'),
    pauseDeadlineSeconds: count('pause-deadline'),
    ...(Object.keys(limits).length > 0 && { limits }),
  })
}

function readDowngrade(values: Values): Readonly<Record<string, unknown>> | undefined {
  const model = textOf(values, 'downgrade-model')
  const balance = textOf(values, 'downgrade-balance')
  const then = textOf(values, 'after-downgrade')
  if (model === undefined && balance === undefined && then === undefined) return undefined
  if (balance !== undefined && !BALANCE_CLASSES.some((each) => each === balance)) {
    throw new UsageError(`--downgrade-balance is one of ${BALANCE_CLASSES.join(', ')}.`, USAGE)
  }
  const constraints = balance === undefined ? undefined : { balanceClasses: [balance] }
  return present({ model, constraints, then: then ?? 'cancel' })
}

function textOf(values: Values, name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

/** Without what is not given. */
function present(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}
