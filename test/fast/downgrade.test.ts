import { isStepDown, type PaidRoute } from '#domain/downgrade.ts'
import { plainPrices, type Prices } from '#domain/pricing.ts'
import { expect, test } from 'vitest'

function route(money: string, [input, output]: readonly [bigint, bigint], change: Partial<Prices> = {}): PaidRoute {
  const [balanceClass = '', currency = ''] = money.split(' ')
  const prices = { ...plainPrices({ inputNanoPerMillion: input, outputNanoPerMillion: output }), ...change }
  return { balanceClass, currency, prices }
}

const direct = route('direct USD', [4n, 16n])
const dear = route('direct USD', [5n, 16n])
const credit = route('credit USD', [4n, 16n])
const longPromptsAt = (inputNanoPerMillion: bigint): Partial<Prices> => ({
  tiers: [{ ...direct.prices, aboveInputTokens: 1_000, inputNanoPerMillion }],
})

test.each([
  ['nothing', [direct], [], false],
  ['the same routes', [direct, credit], [direct, credit], false],
  ['dearer ones', [direct], [dear], false],
  ['the dearer one of those it has', [direct, dear], [dear], false],
  ['the cheapest one of those it has', [direct, dear], [direct], false],
  ['a cheaper one among dearer ones', [dear], [route('direct USD', [9n, 99n]), direct], true],
  ['one that is cheaper for output alone', [direct], [route('direct USD', [9n, 15n])], true],
  ['one that is cheaper by the call', [route('direct USD', [4n, 16n], { perCallNano: 1n })], [direct], true],
  ['one with a fee less', [route('direct USD', [4n, 16n], { toolFeesNano: { search: 1n } })], [direct], true],
  ['one with a fee more', [direct], [route('direct USD', [4n, 16n], { toolFeesNano: { search: 1n } })], false],
  ['one that is cheaper for long prompts', [direct], [route('direct USD', [4n, 16n], longPromptsAt(3n))], true],
  ['one that is dearer for long prompts', [direct], [route('direct USD', [4n, 16n], longPromptsAt(5n))], false],
  ['credit in place of direct money, however dear', [direct], [route('credit USD', [99n, 99n])], true],
  ['credit alone in place of both', [direct, credit], [credit], true],
  ['dearer credit in place of credit', [credit], [route('credit USD', [5n, 16n])], false],
  ['both in place of both, dearer', [direct, credit], [dear, route('credit USD', [5n, 16n])], false],
  ['money of another currency', [direct], [route('direct CNY', [99n, 99n])], true],
] as const)('going on with %s: a step down or not', (_what, before, after, expected) => {
  expect(isStepDown(before, after)).toBe(expected)
})
