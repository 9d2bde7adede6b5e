import type { CatalogDocument } from '#contracts/catalog.ts'
import { createInterface } from 'node:readline'
import { createReadStream } from 'node:fs'
import { z } from 'zod'

/** Slow enough that a kill meets calls in flight. */
const PACE = { delayFirstByteMs: 2_000, tokensPerSecond: 60 } as const

const priceOf = {
  economy: { input: '0.10', output: '0.40' },
  busy: { input: '0.15', output: '0.60' },
  steady: { input: '0.40', output: '1.60' },
  shaky: { input: '0.20', output: '0.80' },
} as const
type Name = keyof typeof priceOf

/** What the provider serves, as it is told by its environment: faults are there again after each of its starts. */
export const sandboxConfig = {
  models: {
    'sandbox-economy': { prices: priceOf.economy, ...PACE },
    'sandbox-busy': { prices: priceOf.busy, ...PACE, faults: [{ rateLimit: { everyNth: 2 }, retryAfterMs: 300 }] },
    'sandbox-steady': { prices: priceOf.steady, ...PACE },
    'sandbox-shaky': {
      prices: priceOf.shaky,
      ...PACE,
      faults: [
        { cutStreamAfterChunks: 3, times: 2 },
        { overloaded: { everyNth: 3 }, times: 9, retryAfterMs: 200 },
        { errorAfterChunks: 2, times: 2 },
        { cutBeforeHeaders: true, times: 1 },
        { serverError: { everyNth: 4 } },
      ],
    },
  },
} as const

const limits = { contextTokens: 128_000, maxOutputTokens: 4_096, timeoutMs: 60_000 } as const

/** `research` falls back over three routes and both balances, `steady` has one, `shaky` one that fails now and then. */
export const catalog: CatalogDocument = {
  models: [
    {
      name: 'research',
      routes: [route('economy', 'credit'), route('busy', 'direct'), route('steady', 'direct')],
    },
    { name: 'steady', routes: [route('steady', 'direct')] },
    { name: 'shaky', routes: [route('shaky', 'direct'), route('steady', 'direct')] },
    { name: 'economy', routes: [route('economy', 'direct')] },
  ],
  prices: Object.entries(priceOf).map(([name, price]) => ({
    provider: 'sandbox',
    upstreamModel: `sandbox-${name}`,
    currency: 'USD',
    ...price,
  })),
}

function route(name: Name, balanceClass: 'direct' | 'credit') {
  return { name, provider: 'sandbox', upstreamModel: `sandbox-${name}`, balanceClass, currency: 'USD', ...limits }
}

const lineSchema = z.object({
  seq: z.int(),
  callKey: z.string().nullable(),
  attempt: z.int().nullable(),
  /** It was not refused: work had begun. */
  begun: z.boolean(),
  billed: z.string(),
})

/** One request as the provider wrote it into its own book. */
export type SeenRequest = z.infer<typeof lineSchema>

/** The provider's own book: over all its lives, the last line of a request counts. */
export async function readRequests(path: string): Promise<readonly SeenRequest[]> {
  const requests = new Map<number, SeenRequest>()
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    const request = parseLine(line)
    if (request) requests.set(request.seq, request)
  }
  return [...requests.values()]
}

/** A kill may have torn a line. */
function parseLine(line: string): SeenRequest | undefined {
  try {
    return lineSchema.parse(JSON.parse(line))
  } catch {
    return undefined
  }
}
