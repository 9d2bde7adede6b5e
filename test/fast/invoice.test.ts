import { parseCsv } from '#domain/csv-table.ts'
import { parseDecimalExactly, unitsOf } from '#domain/decimal.ts'
import { parseInvoice } from '#domain/invoice.ts'
import { InvoiceComparison, type BookedAttempt } from '#domain/invoice-comparison.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

const HEAD = 'request_id,model,amount,currency,tokens\n'

test('CSV is read whatever its cells hold, and what is no CSV names its line', () => {
  const cell = fc.stringMatching(/^[a-c",\n\r x]{0,6}$/)
  const table = fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 5 })
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`
  fc.assert(
    fc.property(table, fc.constantFrom('\n', '\r\n'), fc.boolean(), (rows, end, ends) => {
      const text = rows.map((cells) => cells.map(quoted).join(',')).join(end) + (ends ? end : '')
      const read = parseCsv(text)
      expect(read.ok && read.rows.map(({ cells }) => cells)).toEqual(rows)
    }),
  )
  expect(parseCsv('a,b\n\n"c\nd",e\nf,')).toEqual({
    ok: true,
    rows: [
      { line: 1, cells: ['a', 'b'] },
      { line: 3, cells: ['c\nd', 'e'] },
      { line: 5, cells: ['f', ''] },
    ],
  })
  expect(parseCsv('a,b\nc,"d')).toMatchObject({ ok: false, line: 2 })
  expect(parseCsv('a,b\nc,d"e"')).toMatchObject({ ok: false, line: 2 })
  expect(parseCsv(`a,"${'x'.repeat(4_000_000)}`)).toMatchObject({ ok: false, line: 1 })
  expect(parseCsv(`a,"${'x""'.repeat(1_000_000)}"`)).toMatchObject({ ok: true })
})

test('a number is what it was written as, rounded up to what the ledger counts', () => {
  const units = (text: string, places: number) => {
    const decimal = parseDecimalExactly(text)
    return decimal && unitsOf(decimal, places)
  }
  expect(units('2.5e-06', 15)).toBe(2_500_000_000n)
  expect(units('5.0000000000000004e-08', 15)).toBe(50_000_001n)
  expect(units('1E3', 9)).toBe(1_000_000_000_000n)
  expect(units('0', 9)).toBe(0n)
  expect(units('0.0000000001', 9)).toBe(1n)
  for (const wrong of ['-1', '+1', '.5', '1.', '', '0x1', '1e', '1e999', 'NaN', '1_000', '１'])
    expect(parseDecimalExactly(wrong)).toBeUndefined()
})

test('an invoice names the line that is wrong', () => {
  const told = (csv: string) => {
    const parsed = parseInvoice(csv)
    return parsed.ok ? parsed.lines : `${parsed.line} ${parsed.message}`
  }
  expect(told('id,amount\n1,2')).toBe('1 names no column request_id, model, currency')
  expect(told('')).toContain('1 names no column')
  expect(told(HEAD)).toContain('2 is missing')
  expect(told(`${HEAD}a,m,1,USD,\n,m,1,USD,`)).toBe('3 has no request_id')
  expect(told(`${HEAD}a,m,-1,USD,`)).toContain('2 has an amount that is no number')
  expect(told(`${HEAD}a,m,"1,5",USD,`)).toContain('2 has an amount that is no number')
  expect(told(`${HEAD}a,m,1e30,USD,`)).toContain('too large')
  expect(told(`${HEAD}a,m,1,usd,`)).toContain('no currency')
  expect(told(`${HEAD}a,m,1,USD,many`)).toContain('tokens')
  expect(told(`Currency,AMOUNT,other,model,request_id\nUSD,0.0000000014,x,m,a\nUSD,1e-9,x,m,a`)).toEqual([
    { line: 2, requestId: 'a', model: 'm', currency: 'USD', amount: 3n, tokens: null },
  ])
})

function booked(change: Partial<BookedAttempt>): BookedAttempt {
  return {
    callId: 'c',
    attempt: 1,
    providerRequestId: null,
    upstreamModel: 'm',
    currency: 'USD',
    cost: 5n,
    tokens: 10n,
    isDue: true,
    ...change,
  }
}

test('every line and every attempt is told once: matched, different, unknown to us, or not on the invoice', () => {
  const csv = `${HEAD}gen-1,m,0.000000005,USD,10
c:2,m,0.000000006,USD,10
c:3,other,0.000000005,USD,
c:4,m,0.000000005,USD,11
c:5,m,0.000000005,EUR,10
nobody,m,0.000000007,USD,
c:6,m,0.000000005,USD,10
gen-6,m,0.000000005,USD,10
`
  const parsed = parseInvoice(csv)
  if (!parsed.ok) throw new Error(parsed.message)
  const comparison = new InvoiceComparison(parsed.lines, { maxDifferences: 5 })
  comparison.look(booked({ attempt: 1, providerRequestId: 'gen-1' }))
  for (const attempt of [2, 3, 4, 5]) comparison.look(booked({ attempt }))
  comparison.look(booked({ attempt: 6, providerRequestId: 'gen-6' }))
  comparison.look(booked({ attempt: 7 }))
  comparison.look(booked({ attempt: 8, isDue: false }))
  comparison.look(booked({ attempt: 9, cost: 0n }))
  comparison.look(booked({ attempt: 10, providerRequestId: 'gen-1' }))
  comparison.finish()
  expect(comparison.counts).toEqual({
    matched: 1,
    amount_differs: 3,
    model_differs: 1,
    tokens_differ: 1,
    unknown: 1,
    not_on_invoice: 2,
  })
  expect(comparison.differences).toHaveLength(5)
  expect(comparison.totals()).toEqual([
    { currency: 'EUR', invoiced: 5n, booked: 0n },
    { currency: 'USD', invoiced: 38n, booked: 40n },
  ])
})
