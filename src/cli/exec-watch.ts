import { setTimeout as delay } from 'node:timers/promises'
import { isLastEvent, type EventView } from '#contracts/api-event.ts'
import type { RunView } from '#contracts/api-run.ts'
import { BALANCE_CLASSES, type BalanceClass } from '#contracts/names.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { describeEvent, inWords } from './event-line.ts'
import { isInForeground } from './exec-job.ts'
import type { Screen } from './screen.ts'
import type { StatusLine } from './status-line.ts'

const POLL_MS = 1_000
/** The last look, for what was not told yet; the run is still to be ended. */
const LAST_LOOK_MS = 5_000
/** As many as the API gives at once. */
const EVENTS_PER_PAGE = 200

/** A request of the run was refused: what bound it, and by how much. Amounts of money, tokens or calls. */
export interface Refused {
  readonly limit: string
  readonly needed: string
  readonly remaining: string
  readonly unit: string
  /** Whose money has ended; undefined where a limit is used up, which more money does not help. */
  readonly balanceClass: BalanceClass | undefined
}

/** Whether somebody has put more in. */
type AskForMoney = (
  refused: Refused,
  asking: { readonly balanceClass: BalanceClass; readonly signal: AbortSignal },
) => Promise<boolean>

interface WatchOptions {
  readonly err: Screen
  /** Where its figures are shown; none where there is no terminal. */
  readonly line: StatusLine | undefined
  /** Called each second, but not while somebody is asked. */
  readonly alsoLook: () => void
  /** Asks for more; undefined where nobody can be asked. */
  readonly ask: AskForMoney | undefined
}

/** Looks at a run while its command is at work: shows its figures, and says when its money has ended. */
export class RunWatch {
  readonly #api: PurserClient
  readonly #runId: string
  readonly #options: WatchOptions
  readonly #stopped = new AbortController()
  readonly #calls = new Set<unknown>()
  readonly #looking: Promise<void>
  #lastEventId: string | undefined
  /** The last refusal of each limit and pocket that nobody was told of: a look may be broken off behind them. */
  readonly #untold = new Map<string, Refused>()
  #ask: AskForMoney | undefined
  /** What was said to be used up. */
  readonly #complained = new Set<string>()

  constructor(api: PurserClient, run: RunView, options: WatchOptions) {
    this.#api = api
    this.#runId = run.id
    this.#options = options
    this.#ask = options.ask
    options.line?.show(figuresOf(run, 0))
    this.#looking = this.#follow()
  }

  /** The command is over: nobody is asked any more, and a refusal that was not told yet is told. */
  async stop(gaveUp: AbortSignal): Promise<void> {
    this.#ask = undefined
    this.#stopped.abort(new Error('The command is over.'))
    await this.#looking
    await this.#look(AbortSignal.any([gaveUp, AbortSignal.timeout(LAST_LOOK_MS)])).catch(() => {})
    this.#options.line?.close()
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      await this.#look(signal).catch(() => {
        if (!signal.aborted) this.#options.line?.show('purser  no answer from the API')
      })
      await delay(POLL_MS, undefined, { signal }).catch(() => {})
      if (!signal.aborted) this.#options.alsoLook()
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    await this.#readEvents(signal)
    const { line } = this.#options
    if (line) {
      const run = await this.#api.get('/runs/{id}', { params: { path: { id: this.#runId } }, signal })
      line.show(figuresOf(run, this.#calls.size))
    }
    for (const [limit, refused] of this.#untold) {
      this.#untold.delete(limit)
      await this.#tell(refused, signal)
    }
  }

  async #readEvents(signal: AbortSignal): Promise<void> {
    for (;;) {
      const after = this.#lastEventId
      const { events } = await this.#api.get('/runs/{id}/events', {
        params: { path: { id: this.#runId }, query: { format: 'json', ...(after !== undefined && { after }) } },
        signal,
      })
      for (const event of events) {
        this.#lastEventId = event.id
        if (event.kind === 'attempt.settled') this.#calls.add(event.data['callId'])
        if (event.kind === 'run.exhausted') {
          const refused = refusedOf(event)
          this.#untold.set(refused.limit, refused)
        }
        this.#tellState(event)
      }
      if (events.length < EVENTS_PER_PAGE) return
    }
  }

  /** What somebody else, or time, did to the run while its command is at work: the command hears of it by refusals only. */
  #tellState(event: EventView): void {
    const { err } = this.#options
    const { text } = describeEvent(event, undefined) ?? {}
    if (isLastEvent(event)) err.line(`purser: The run is over, and requests are refused: ${text}`)
    else if (event.kind === 'run.paused')
      err.line(`purser: The run is ${text} Requests are refused until it is resumed.`)
    else if (event.kind === 'run.running' && event.data['from'] === 'paused') err.line('purser: The run goes on.')
  }

  async #tell(refused: Refused, signal: AbortSignal): Promise<void> {
    const { err, line } = this.#options
    const { limit, balanceClass } = refused
    // In the background it would be stopped for asking.
    if (this.#ask && balanceClass && isInForeground()) {
      line?.hide()
      if (!(await this.#ask(refused, { balanceClass, signal }))) this.#ask = undefined
      return
    }
    if (this.#complained.has(limit)) return
    this.#complained.add(limit)
    const helps = balanceClass
      ? `Requests are refused until: purser top-up ${this.#runId} --${balanceClass} AMOUNT`
      : `More money does not help: the limit has to be raised${limit.includes(' per ') ? ', or its window to end' : ''}.`
    err.line(`purser: ${inOneSentence(refused)} ${helps}`)
  }
}

export function inOneSentence({ limit, needed, remaining, unit }: Refused): string {
  return `The ${limit} is used up: a request needs ${needed} ${unit}, ${remaining} ${unit} are free.`
}

function refusedOf({ data }: EventView): Refused {
  const text = (name: string): string => (typeof data[name] === 'string' ? data[name] : '?')
  const limit = inWords(text('limit'))
  const balanceClass = BALANCE_CLASSES.find((each) => limit === `${each} pocket`)
  return { limit, needed: text('needed'), remaining: text('remaining'), unit: text('unit'), balanceClass }
}

function figuresOf({ envelope }: RunView, calls: number): string {
  const pockets = envelope.pockets.map(({ balanceClass, currency, spent, held, free }) => {
    const name = envelope.pockets.length > 1 ? `${balanceClass} ` : ''
    return `${name}spent ${spent.amount} · held ${held.amount} · left ${free.amount} ${currency}`
  })
  return `purser  ${pockets.join('  |  ')} · ${calls} ${calls === 1 ? 'call' : 'calls'}`
}
