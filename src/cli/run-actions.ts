import { BALANCE_CLASSES } from '#contracts/names.ts'
import { randomUUID } from 'node:crypto'
import { readArguments, runIdIn, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import type { Command } from './main.ts'
import type { Pockets } from './order-values.ts'

const text = { type: 'string' } as const

export const pause = action('pause', {
  usage: `Usage: purser pause RUN_ID

No request of the run begins until it is resumed; those in flight finish.`,
  options: {},
  bodyOf: () => ({}),
})

export const resume = action('resume', {
  usage: 'Usage: purser resume RUN_ID\n\nLets a paused run go on. One that waits for money asks again.',
  options: {},
  bodyOf: () => ({}),
})

export const topUp = action('top-up', {
  usage: `Usage: purser top-up RUN_ID [--direct AMOUNT] [--credit AMOUNT] [--currency CODE]

Moves more money from the wallet into the run's envelope. A run that waits for money goes on.

  --currency CODE  of the amounts (default: USD)`,
  options: { direct: text, credit: text, currency: text },
  bodyOf(values) {
    const pockets = pocketsOf(values)
    if (pockets.length === 0) throw new UsageError('give --direct, --credit, or both.', this.usage)
    return { pockets }
  },
})

export const cancel = action('cancel', {
  usage: `Usage: purser cancel RUN_ID [--wrap-up] [--reason TEXT]

Ends a run now: what is in flight is aborted and settled, and the rest goes home.

  --wrap-up      what is in flight may finish, and the run delivers what it has
  --reason TEXT  stands in the run's record`,
  options: { 'wrap-up': { type: 'boolean' }, reason: text },
  bodyOf: ({ 'wrap-up': wrapUp, reason }) => ({
    mode: wrapUp === true ? 'wrap_up' : 'now',
    ...(typeof reason === 'string' && { reason }),
  }),
})

export const end = action('end', {
  usage: `Usage: purser end RUN_ID

Ends an external run whose work is done: it completes, its key opens nothing any more, and the rest goes home.`,
  options: {},
  bodyOf: () => ({}),
})

export const answer = action('answer', {
  usage: `Usage: purser answer RUN_ID TEXT [--path PATH]

Answers the question of a run.

  --path PATH  of the question, where several are open`,
  options: { path: text },
  needs: 'the answer is missing.',
  bodyOf: ({ path }, given) => ({ answer: given, ...(typeof path === 'string' && { path }) }),
})

const AGAIN_OPTIONS = `  --model NAME                        another catalog model
  --on-exhausted pause|cancel         another choice for when the money ends
  --direct AMOUNT --credit AMOUNT     another envelope (--currency CODE, default: USD)`

const againOptions = { model: text, 'on-exhausted': text, direct: text, credit: text, currency: text }

export const rerun = action('rerun', {
  usage: `Usage: purser rerun RUN_ID [OPTIONS]

Starts a run of the same request, in an envelope as large as the first one was.

${AGAIN_OPTIONS}`,
  options: againOptions,
  bodyOf: overridesOf,
})

export const fork = action('fork', {
  usage: `Usage: purser fork RUN_ID [--from STEP] [OPTIONS]

Starts a run of the same request that uses the first one's stored answers again, at no cost.

  --from STEP                         what is done anew, with all that came after it: a path, or what its paths begin
                                      with, such as read (default: what has no answer yet)
${AGAIN_OPTIONS}`,
  options: { ...againOptions, from: text },
  bodyOf: (values) => ({ ...overridesOf(values), ...(typeof values['from'] === 'string' && { from: values['from'] }) }),
})

type Values = Readonly<Partial<Record<string, string | boolean>>>

type ActionName = 'pause' | 'resume' | 'top-up' | 'cancel' | 'end' | 'answer' | 'rerun' | 'fork'

/** A command that asks one thing of a run and prints how the run stands then, as one line. */
function action(
  name: ActionName,
  spec: {
    readonly usage: string
    readonly options: Readonly<Record<string, { readonly type: 'string' | 'boolean' }>>
    /** What is wrong when nothing follows the id; left out where nothing has to. */
    readonly needs?: string
    readonly bodyOf: (values: Values, given: string) => unknown
  },
): Command {
  const { usage, options, needs } = spec
  return async (args, { out }) => {
    const { values, positionals } = readArguments(args, {
      options: { ...options, help: { type: 'boolean', short: 'h' } },
      usage,
      positionals: needs === undefined ? 1 : 2,
    })
    if (values.help === true) {
      out.line(usage)
      return 0
    }
    const runId = runIdIn(positionals, usage)
    const given = positionals[1]
    if (needs !== undefined && given === undefined) throw new UsageError(needs, usage)
    const body = spec.bodyOf(stringsOf(values), given ?? '')
    const api = await connectToApi(process.env)
    const run = await api.postAsItIs(`/runs/{id}/${name}`, { path: { id: runId }, body, idempotencyKey: randomUUID() })
    out.line(`Run ${run.id}: ${run.state}${run.detail === null ? '' : `, ${run.detail}`}`)
    return 0
  }
}

function stringsOf(values: Readonly<Record<string, unknown>>): Values {
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) =>
      typeof value === 'string' || typeof value === 'boolean' ? [[name, value] as const] : [],
    ),
  )
}

function pocketsOf(values: Values): Pockets {
  const currency = typeof values['currency'] === 'string' ? values['currency'] : 'USD'
  return BALANCE_CLASSES.flatMap((balanceClass) => {
    const amount = values[balanceClass]
    return typeof amount === 'string' ? [{ balanceClass, amount: { amount, currency } }] : []
  })
}

function overridesOf(values: Values): Readonly<Record<string, unknown>> {
  const { model, 'on-exhausted': onExhausted } = values
  const pockets = pocketsOf(values)
  return {
    ...(typeof model === 'string' && { model }),
    ...(typeof onExhausted === 'string' && { onExhausted }),
    ...(pockets.length > 0 && { envelope: { pockets } }),
  }
}
