import type { CatalogPrice, CatalogRoute } from '#contracts/catalog.ts'
import type { ProviderKind } from '#contracts/names.ts'
import type { CallReport, Report } from '#contracts/report.ts'
import { readReport } from '#db/report.ts'
import { parseDecimal } from '#domain/money.ts'
import { createWorld, requestsSeen, type SeenRequest, type TestRun, type World } from './world.ts'

/** A route to a model of the sandbox that it shares with no other route: circuits and faults go by model. */
export interface ScriptedRoute {
  /** Of the upstream model, before the words of its faults. */
  readonly model: string
  /** Words of faults, as in a model's name: `429:times-1`. */
  readonly words?: string
  /** What the sandbox is told of the model: its settings, and faults as rules, the first that applies first. */
  readonly sandbox?: Readonly<Record<string, unknown>>
  readonly prices?: Omit<CatalogPrice, 'provider' | 'upstreamModel' | 'currency'>
  readonly route?: Partial<CatalogRoute>
}

const PRICES = { input: '0.40', output: '1.60' } as const

/** A world whose catalog has these models, each with routes that fail as they are told to. */
export function createFaultWorld(options: {
  readonly kind?: ProviderKind
  readonly models: readonly {
    readonly name: string
    readonly kind?: 'chat' | 'embedding'
    readonly routes: readonly ScriptedRoute[]
  }[]
}): Promise<World> {
  const { kind = 'openai', models } = options
  const routes = models.flatMap((model) => model.routes)
  return createWorld({
    kind,
    sandbox: {
      config: {
        models: Object.fromEntries(
          routes.map(({ model, prices, sandbox }) => [model, { prices: prices ?? PRICES, ...sandbox }]),
        ),
      },
    },
    catalog: {
      models: models.map((model) => ({ ...model, routes: model.routes.map(routeOf) })),
      prices: routes.map((route) => ({
        provider: 'sandbox',
        upstreamModel: upstreamOf(route),
        currency: 'USD',
        ...(route.prices ?? PRICES),
      })),
    },
  })
}

function routeOf(scripted: ScriptedRoute): CatalogRoute {
  return {
    name: scripted.model,
    provider: 'sandbox',
    upstreamModel: upstreamOf(scripted),
    balanceClass: 'direct',
    currency: 'USD',
    contextTokens: 128_000,
    maxOutputTokens: 4_096,
    timeoutMs: 60_000,
    ...scripted.route,
  }
}

function upstreamOf({ model, words }: ScriptedRoute): string {
  return words === undefined ? model : `${model}:${words}`
}

/** One attempt as the books have it, and the request as the provider has it. Amounts in nano. */
export interface BookedAttempt {
  readonly callId: string
  readonly path: string
  readonly number: number
  readonly route: string
  readonly outcome: CallReport['attempts'][number]['outcome']
  readonly certainty: CallReport['attempts'][number]['certainty']
  readonly use: CallReport['attempts'][number]['use']
  readonly held: bigint
  readonly charged: bigint
  /** Undefined: the provider never saw it. */
  readonly seen: SeenRequest | undefined
  readonly billed: bigint
}

/** All attempts of a run beside what the provider saw of them, once the provider has ended all its requests. */
export async function attemptsOf(world: World, run: TestRun): Promise<readonly BookedAttempt[]> {
  const report = await reportOf(world, run)
  const begun = (await requestsSeen(world.sandbox)).length
  await world.sandbox.control('GET', `/counters?ended=${begun}&waitMs=5000`)
  const seen = new Map((await requestsSeen(world.sandbox)).map((each) => [`${each.callKey}:${each.attempt}`, each]))
  return report.calls.flatMap(({ id, path, attempts }) =>
    attempts
      .filter(({ kind }) => kind === 'attempt')
      .map(({ number, route, outcome, certainty, use, held, charged }) => {
        const request = seen.get(`${id}:${number}`)
        return {
          callId: id,
          path,
          number,
          route,
          outcome,
          certainty,
          use,
          held: nanoOf(held.amount),
          charged: nanoOf(charged.amount),
          seen: request,
          billed: request ? nanoOf(request.billed) : 0n,
        }
      }),
  )
}

export async function reportOf(world: World, { runId }: TestRun): Promise<Report> {
  const report = await readReport(world.db, world.scope, runId)
  if (!report) throw new Error('no report')
  return report
}

export function nanoOf(amount: string): bigint {
  const parsed = parseDecimal(amount)
  if (!parsed.ok) throw new Error(`${amount} is no amount`)
  return parsed.nano
}

/** Works on all items, on so many at once. */
export async function inTurn<Item>(
  items: Iterable<Item>,
  atOnce: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const left = [...items].values()
  const workers = Array.from({ length: atOnce }, async () => {
    // One iterator for all of them.
    for (const item of left) await work(item)
  })
  await Promise.all(workers)
}
