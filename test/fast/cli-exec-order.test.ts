import { commandEnvironment } from '../../src/cli/exec-command.ts'
import { readExecOrder } from '../../src/cli/exec-order.ts'
import { expect, test } from 'vitest'

test('what stands behind the first -- is the command as it is, and what stands before it opens the run', () => {
  const options = '--budget 2.00 --model small --idle 60 --max-seconds 600 --max-calls 9 --clamp 50 --threshold 50,80'
  const order = readExecOrder([...options.split(' '), '--', 'npm', 'test', '--', '--budget'])
  expect(order).toEqual({
    command: ['npm', 'test', '--', '--budget'],
    model: 'small',
    isQuiet: false,
    request: {
      envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: '2.00', currency: 'USD' } }] },
      name: 'npm test -- --budget',
      model: 'small',
      idleSeconds: 60,
      limits: { seconds: 600, calls: 9 },
      tight: { policy: 'clamp', floorTokens: 50 },
      thresholds: [50, 80],
    },
  })
})

test('a name is one line of at most 200 characters', () => {
  const nameOf = (...command: readonly string[]) => {
    const order = readExecOrder(['--credit', '1', '--', ...command])
    return order === 'help' ? undefined : order.request['name']
  }
  expect(nameOf('sh', '-c', 'a\n\tb')).toBe('sh -c a b')
  expect(nameOf(`${'x'.repeat(199)}😀`)).toHaveLength(200)
})

test('without a command or an amount nothing is opened', () => {
  for (const [args, message] of [
    [['--budget', '1', 'pwd'], '"pwd" is not expected here'],
    [['--budget', '1'], 'the command is missing'],
    [['--budget', '1', '--'], 'the command is missing'],
    [['--', 'pwd'], '--budget is missing'],
    [['--budget', '1,5', '--', 'pwd'], '1,5 is not an amount'],
    [['--budget', '1', '--credit', '1', '--', 'pwd'], 'give either --budget, or'],
    [['--budget', '1', '--idle', '0', '--', 'pwd'], '--idle is a whole number'],
  ] as const) {
    expect(() => readExecOrder(args)).toThrow(message)
  }
})

test('the command is told where to ask, and no key that could spend more', () => {
  const env = {
    PATH: '/bin',
    OPENAI_API_KEY: 'mine',
    ANTHROPIC_AUTH_TOKEN: 'mine',
    ANTHROPIC_CUSTOM_HEADERS: 'x-api-key: mine',
    OPENAI_CUSTOM_HEADERS: 'Authorization: Bearer mine',
    PURSER_KEY: 'purser_pk_wallet',
    // Claude Code would ask a cloud instead, for money that is not in the envelope.
    CLAUDE_CODE_USE_BEDROCK: '1',
    CLAUDE_CODE_USE_VERTEX: '1',
    CLAUDE_CODE_USE_FOUNDRY: '1',
    OPENAI_API_BASE: 'https://elsewhere.example/v1',
  }
  const run = { id: 'r', url: 'http://127.0.0.1:1', secret: 'purser_rk_x', model: undefined }
  expect(commandEnvironment(env, run)).toEqual({
    PATH: '/bin',
    OPENAI_BASE_URL: 'http://127.0.0.1:1/v1',
    OPENAI_API_BASE: 'http://127.0.0.1:1/v1',
    OPENAI_API_KEY: 'purser_rk_x',
    ANTHROPIC_BASE_URL: 'http://127.0.0.1:1',
    ANTHROPIC_API_KEY: 'purser_rk_x',
    PURSER_URL: 'http://127.0.0.1:1',
    PURSER_KEY: 'purser_rk_x',
    PURSER_RUN_ID: 'r',
  })
  expect(commandEnvironment(env, { ...run, model: 'm' })).toMatchObject({
    OPENAI_MODEL: 'm',
    ANTHROPIC_MODEL: 'm',
    ANTHROPIC_DEFAULT_OPUS_MODEL: 'm',
    ANTHROPIC_DEFAULT_SONNET_MODEL: 'm',
    ANTHROPIC_DEFAULT_HAIKU_MODEL: 'm',
    ANTHROPIC_SMALL_FAST_MODEL: 'm',
    CLAUDE_CODE_SUBAGENT_MODEL: 'm',
  })
})
