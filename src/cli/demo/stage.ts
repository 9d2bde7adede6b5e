import type { EventView } from '#contracts/api-event.ts'
import type { Pockets } from '../order-values.ts'
import type { ModelList } from '#contracts/api-catalog.ts'
import type { RunView, TransferView } from '#contracts/api-run.ts'
import type { OnExhausted } from '#contracts/names.ts'
import type { Report } from '#contracts/report.ts'
import type { Stack } from '#local/stack.ts'
import type { RunningProcess } from '#local/child-process.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { describeEvent, formatEventLine } from '../event-line.ts'
import { followRun } from '../run-progress.ts'
import type { Screen } from '../screen.ts'
import { wrapText } from '../text-table.ts'
import type { LocalAccount } from '../up-account.ts'
import { totalOfTransfers, type TransferTotal } from './ledger-total.ts'
import type { LoggedRequest, SandboxControl } from './sandbox-control.ts'

export type Model = ModelList['models'][number]

export type SceneName = 'plain' | 'paused' | 'cancelled' | 'killed' | 'killed-after-answer'

/** What every scene of the demo has to work with. */
export interface Stage {
  readonly screen: Screen
  readonly stack: Stack
  readonly operator: PurserClient
  /** With the project's key. */
  readonly api: PurserClient
  readonly account: LocalAccount
  /** The catalog model with retries, a fallback and two balances on its way. */
  readonly model: Model
  /** One with a single route, where there is one: what happens for lack of money stands out. */
  readonly simpleModel: Model
  readonly question: string
  readonly corpusId: string
  /** Absent with a real provider, which cannot be looked into. */
  readonly sandbox: SandboxControl | undefined
  /** The worker that is up. */
  worker: RunningProcess
}

/** A run of the demo, with what three parties counted: its report, its journal, and the provider. */
export interface Evidence {
  readonly name: SceneName
  readonly state: string
  readonly report: Report
  readonly transferTotal: TransferTotal
  /** How often the provider began to answer a call, if it ever did; null when there is no looking into it. */
  readonly providerAnswersByCallKey: Readonly<Record<string, number>> | null
}

const CURRENCY = 'USD'
const LEDGER_PAGE = 200

export function printTitle(screen: Screen, number: number, title: string): void {
  const text = `── ${number} · ${title} `
  screen.line(`\n${screen.paint('bold', text.padEnd(screen.width, '─'))}\n`)
}

export function printText(screen: Screen, text: string): void {
  screen.line(wrapText(text, { width: screen.width }))
}

export interface RunOrder {
  readonly model: Model
  /** In USD; a balance that is left out gets no pocket. */
  readonly direct?: string
  readonly credit?: string | undefined
  readonly onExhausted: OnExhausted
}

export function pocketsOf({ direct, credit }: Pick<RunOrder, 'direct' | 'credit'>): Pockets {
  return [
    ...(direct === undefined
      ? []
      : [{ balanceClass: 'direct' as const, amount: { amount: direct, currency: CURRENCY } }]),
    ...(credit === undefined
      ? []
      : [{ balanceClass: 'credit' as const, amount: { amount: credit, currency: CURRENCY } }]),
  ]
}

export async function startRun(stage: Stage, order: RunOrder): Promise<RunView> {
  const { api, question, corpusId } = stage
  const run = await api.startRun({
    body: {
      agent: 'research',
      model: order.model.name,
      input: { question, corpusId },
      envelope: { pockets: pocketsOf(order) },
      onExhausted: order.onExhausted,
    },
  })
  stage.screen.line(stage.screen.paint('dim', `POST /api/v1/runs → run ${run.id}`))
  return run
}

/** Shows a run's events as they come, until it ends or, when asked so, pauses. */
export async function watchRun(
  stage: Stage,
  runId: string,
  options: {
    readonly after?: string | undefined
    readonly stopsAtPause?: boolean
    /** Called after an event was shown. */
    readonly onShown?: (event: EventView) => void
  } = {},
): Promise<{ readonly run: RunView; readonly lastEventId: string | undefined }> {
  const { screen, api } = stage
  const { after, stopsAtPause = false, onShown } = options
  const startMs = performance.now()
  return followRun(api, runId, {
    ...(after !== undefined && { after }),
    stopsAtPause,
    onEvent: (event, path) => {
      const line = describeEvent(event, path)
      if (line) {
        const text = formatEventLine(line, performance.now() - startMs)
        screen.line(line.style ? screen.paint(line.style, text) : text)
      }
      onShown?.(event)
    },
  })
}

/** @throws when the scene did not turn out as it was written */
export function requireState({ id, state, detail }: RunView, expected: RunView['state']): void {
  if (state === expected) return
  throw new Error(`The run ${id} is ${state}, not ${expected}${detail === null ? '.' : `: ${detail}`}`)
}

export async function gatherEvidence(stage: Stage, name: SceneName, run: RunView): Promise<Evidence> {
  const report = await stage.api.get('/runs/{id}/report', { params: { path: { id: run.id } } })
  const requests = await requestsOf(stage, report)
  return {
    name,
    state: run.state,
    report,
    transferTotal: totalOfTransfers(await readTransfers(stage.api, run.id)),
    providerAnswersByCallKey: requests ? countAnswers(requests) : null,
  }
}

/** What the provider's own log has of a run's calls. */
export async function requestsOf(
  stage: Stage,
  { calls }: Pick<Report, 'calls'>,
): Promise<readonly LoggedRequest[] | undefined> {
  const keys = new Set(calls.map(({ id }) => id))
  const log = await stage.sandbox?.readLog()
  return log?.filter(({ callKey }) => callKey !== null && keys.has(callKey))
}

function countAnswers(requests: readonly LoggedRequest[]): Readonly<Record<string, number>> {
  const counts = new Map<string, number>()
  for (const { callKey, begun } of requests) {
    if (begun && callKey !== null) counts.set(callKey, (counts.get(callKey) ?? 0) + 1)
  }
  return Object.fromEntries(counts)
}

async function readTransfers(api: PurserClient, runId: string): Promise<readonly TransferView[]> {
  const transfers: TransferView[] = []
  let cursor: string | null = null
  do {
    const query: { readonly limit: number; readonly cursor?: string } = {
      limit: LEDGER_PAGE,
      ...(cursor !== null && { cursor }),
    }
    const page: { readonly transfers: TransferView[]; readonly nextCursor: string | null } = await api.get(
      '/runs/{id}/ledger',
      { params: { path: { id: runId }, query } },
    )
    transfers.push(...page.transfers)
    cursor = page.nextCursor
  } while (cursor !== null)
  return transfers
}
