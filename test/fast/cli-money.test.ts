import { describe, expect, test } from 'vitest'
import type { TransferView } from '#contracts/api-run.ts'
import { catalogSchema } from '#contracts/catalog.ts'
import { chooseProvider } from '#local/provider-choice.ts'
import { sandboxCatalog } from '#local/catalog.ts'
import { defaultConfig } from '#sandbox/default-config.ts'
import { totalOfTransfers } from '../../src/cli/demo/ledger-total.ts'

describe("the demo's catalog", () => {
  test('is a valid catalog, and prices everything it routes to', () => {
    expect(catalogSchema.parse(sandboxCatalog)).toMatchObject(sandboxCatalog)
    const priced = new Set(sandboxCatalog.prices.map(({ upstreamModel }) => upstreamModel))
    const routed = sandboxCatalog.models.flatMap(({ routes }) => routes.map(({ upstreamModel }) => upstreamModel))
    expect(routed.filter((name) => !priced.has(name))).toEqual([])
  })

  test('says the prices that the sandbox says it bills', () => {
    const billed = new Map(Object.entries(defaultConfig.models).map(([name, { prices }]) => [name, prices]))
    for (const { upstreamModel, input, output } of sandboxCatalog.prices) {
      expect({ upstreamModel, prices: { input, output } }).toEqual({ upstreamModel, prices: billed.get(upstreamModel) })
    }
  })
})

describe('the provider of a local stack', () => {
  const key = { OPENAI_API_KEY: 'sk-1' }
  const model = { ...key, PURSER_PROVIDER_MODEL: 'large-1', PURSER_PROVIDER_INPUT_PRICE: '0.40' }

  test('is the sandbox unless a key is given', () => {
    expect(chooseProvider({ PURSER_PROVIDER_MODEL: 'large-1' }).kind).toBe('sandbox')
  })

  test('is refused with a key and no model or price, naming what is missing', () => {
    expect(() => chooseProvider(key)).toThrow(
      'set PURSER_PROVIDER_MODEL, PURSER_PROVIDER_INPUT_PRICE, PURSER_PROVIDER_OUTPUT_PRICE as well',
    )
    expect(() => chooseProvider(model)).toThrow('set PURSER_PROVIDER_OUTPUT_PRICE as well')
    expect(() => chooseProvider({ ...model, PURSER_PROVIDER_OUTPUT_PRICE: '1,60' })).toThrow(
      'OUTPUT_PRICE is not a price',
    )
  })

  test('is Anthropic with its key, and OpenAI where both have one', () => {
    const { OPENAI_API_KEY: _, ...priced } = {
      ...model,
      PURSER_PROVIDER_OUTPUT_PRICE: '1.60',
      ANTHROPIC_API_KEY: 'sk-2',
    }
    expect(chooseProvider(priced)).toMatchObject({ kind: 'anthropic', apiKey: 'sk-2', upstreamModel: 'large-1' })
    expect(chooseProvider({ ...priced, ...key })).toMatchObject({ kind: 'openai', apiKey: 'sk-1' })
    expect(() => chooseProvider({ ANTHROPIC_API_KEY: 'sk-2' })).toThrow('ANTHROPIC_API_KEY is set')
  })

  test('is one priced upstream model for both balances', () => {
    const choice = chooseProvider({
      ...model,
      PURSER_PROVIDER_OUTPUT_PRICE: '1.60',
      OPENAI_BASE_URL: 'http://127.0.0.1:1/v1',
    })
    expect(choice).toMatchObject({ kind: 'openai', baseUrl: 'http://127.0.0.1:1/v1', upstreamModel: 'large-1' })
    expect(catalogSchema.parse(choice.catalog)).toMatchObject({
      models: [{ name: 'research', routes: [{ balanceClass: 'credit' }, { balanceClass: 'direct' }] }],
      prices: [{ upstreamModel: 'large-1', input: '0.40', output: '1.60' }],
    })
  })
})

const usd = (amount: string) => ({ amount, currency: 'USD' })

function transfer(code: TransferView['code'], amount: string, change: Partial<TransferView> = {}): TransferView {
  return {
    id: '00000000-0000-8000-8000-000000000000',
    code,
    recordedAt: '2026-11-01T00:00:00.000Z',
    debit: { id: 'p', kind: 'pocket', balanceClass: 'direct' },
    credit: { id: 'c', kind: 'provider_cost', balanceClass: null },
    amount: usd(amount),
    released: usd('0'),
    resolves: null,
    callId: 'call',
    attempt: 1,
    certainty: null,
    use: null,
    lotId: null,
    quoteId: null,
    balanceAfter: null,
    heldAfter: null,
    ...change,
  }
}

test('captures, overages and corrections add up by balance; holds, voids and top-ups do not count', () => {
  const credit = { debit: { id: 'q', kind: 'pocket', balanceClass: 'credit' as const }, attempt: 2 }
  const debt = { debit: { id: 'd', kind: 'overage', balanceClass: null } }
  const back = {
    debit: { id: 'c', kind: 'provider_cost', balanceClass: null },
    credit: { id: 'p', kind: 'pocket', balanceClass: 'direct' as const },
  }
  const transfers = [
    transfer('top_up', '1'),
    transfer('hold', '0.5'),
    transfer('capture', '0.3'),
    transfer('overage', '0.02', debt),
    transfer('correction', '0.05', back),
    transfer('hold', '0.2', credit),
    transfer('capture', '0.1', credit),
    transfer('return', '0.7'),
  ]
  expect(totalOfTransfers(transfers)).toEqual({
    total: '0.370000',
    currency: 'USD',
    byBalance: [
      { balanceClass: 'direct', currency: 'USD', amount: '0.270000' },
      { balanceClass: 'credit', currency: 'USD', amount: '0.100000' },
    ],
  })
})
