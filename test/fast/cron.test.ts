import { cronProblem } from '#domain/cron.ts'
import { describe, expect, test } from 'vitest'

describe('a cron expression', () => {
  test.each([
    '* * * * *',
    '0 3 * * 1-5',
    '*/15 8-18/2 1,15 JAN-mar Sun',
    '59 23 31 12 7',
    '  5  4 * * fri ',
    '0 0 29 2 *',
    '0 0 1/30 4 *',
  ])('is right: %s', (text) => expect(cronProblem(text)).toBeUndefined())

  test.each([
    '',
    '* * * *',
    '* * * * * *',
    '60 * * * *',
    '* 24 * * *',
    '* * 0 * *',
    '* * * 13 *',
    '* * * * 8',
    '5-1 * * * *',
    '*/0 * * * *',
    '*-5 * * * *',
    '1,,2 * * * *',
    '@daily',
    '* * * * noday',
    // Days that no year has.
    '0 0 30 2 *',
    '0 0 31 4,jun,9-9,11/2 *',
  ])('is wrong: %s', (text) => expect(cronProblem(text)).toMatch(/^(is not|has no|never comes)/))
})
