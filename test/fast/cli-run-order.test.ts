import { readOrder } from '../../src/cli/run-order.ts'
import { expect, test } from 'vitest'

const ORDER = ['research', '--question', 'When?'] as const

test('envelope options become what the API takes', () => {
  const options =
    '--direct 0.5 --wrap-up 10 --on-exhausted downgrade --downgrade-model small --downgrade-balance credit ' +
    '--after-downgrade pause --max-calls 9 --max-tokens 900 --max-seconds 60 --max-prompt 500 --threshold 50,80 ' +
    '--priority 1 --pause-deadline 5'
  const order = readOrder([...ORDER, ...options.split(' ')])
  expect(order).toMatchObject({
    envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: '0.5', currency: 'USD' } }], wrapUpPercent: 10 },
    onExhausted: 'downgrade',
    choices: {
      downgrade: { model: 'small', constraints: { balanceClasses: ['credit'] }, then: 'pause' },
      limits: { calls: 9, tokens: 900, seconds: 60, inputTokensPerCall: 500 },
      thresholds: [50, 80],
      priority: 1,
      pauseDeadlineSeconds: 5,
    },
  })
  expect(readOrder(ORDER)).toMatchObject({ onExhausted: 'cancel', choices: {}, isDryRun: false })
})

test('an agent of another kind is given its whole input', () => {
  expect(readOrder(['steps', '--input', '{"count":3}'])).toMatchObject({ ask: { input: '{"count":3}' } })
  expect(readOrder(ORDER)).toMatchObject({ ask: { question: 'When?' } })
  expect(() => readOrder([...ORDER, '--input', '{}'])).toThrow('--input is the whole input')
  expect(() => readOrder(['steps'])).toThrow('--question is missing, or --input')
})

test('what cannot be meant is said before anything is asked', () => {
  for (const [args, message] of [
    [['--max-calls', '0'], '--max-calls is a whole number'],
    [['--threshold', '50,x'], '--threshold is a whole number'],
    [['--on-exhausted', 'downgrade'], '--on-exhausted downgrade goes with'],
    [['--downgrade-model', 'small'], '--on-exhausted downgrade goes with'],
    [['--on-exhausted', 'downgrade', '--downgrade-balance', 'gold'], '--downgrade-balance is one of'],
  ] as const) {
    expect(() => readOrder([...ORDER, ...args])).toThrow(message)
  }
})
