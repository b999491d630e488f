# ruff: noqa: E501
"""Make the spoken commands: `python data/make_utterances.py [FOLDER]` writes utterances.csv.

3,000 commands in English and Russian, six intents, seventeen slot types, written by a small grammar: a carrier phrase with slots, each
filled from a pool. Cities, territories, languages, currencies, weekdays and months come from Babel's CLDR tables, times, amounts and
head counts from num2words; song titles are ordinary words, numbers, cities and months, so that a word alone does not tell its slot.
One command in eight has a filler, one in twelve with a time, a day or a head count is corrected ("for six no sorry seven": only the
value that holds is labelled). No capitals, no punctuation, as a speech recogniser writes.

A row: split, kind, intent, text with its slots in brackets, "set an alarm for [time seven] on [day monday]". A tenth of the values and
phrases is kept for the valid split, a fifth for the test split. Kinds of test commands: "seen" (another combination of known phrase and
known values), "new value" (known phrase, at least one value that train lacks), "new phrase" (known values, a phrase that train lacks);
phrase = the text with each slot replaced by its type. No test or valid command stands in train.

Bit for bit under Babel 2.18 and num2words 0.5.14 (other versions may spell a name otherwise); random.Random.random has a frozen stream.
"""

import csv
import random
import re
import sys
from pathlib import Path

from babel import Locale
from babel.numbers import get_currency_name
from num2words import num2words

SIZES = {"train": 2_000, "valid": 400, "test": 600}
KINDS = "seen", "new value", "new phrase"
ZONES = """Europe/London Europe/Paris Europe/Berlin Europe/Madrid Europe/Rome Europe/Vienna Europe/Prague Europe/Warsaw Europe/Lisbon
Europe/Dublin Europe/Oslo Europe/Stockholm Europe/Helsinki Europe/Athens Europe/Moscow Europe/Samara Europe/Budapest Europe/Belgrade
Asia/Tokyo Asia/Seoul Asia/Shanghai Asia/Singapore Asia/Dubai Asia/Baghdad Asia/Bangkok Asia/Jakarta Asia/Tashkent Asia/Omsk
Africa/Cairo Africa/Nairobi Africa/Lagos Africa/Tunis America/Toronto America/Chicago America/Denver America/Havana America/Lima
America/New_York America/Los_Angeles America/Mexico_City Australia/Sydney Australia/Melbourne Australia/Perth""".split()
COUNTRIES = "FR DE IT ES PT NO SE FI PL GR EG KE NG TN JP CN IN TH VN BR AR CL PE MX CA CU NZ AU TR IL GE KZ".split()
LANGUAGES = "en fr de it es pt nl pl cs fi sv da el tr ar ja zh ko th vi ka hu ro bg et lv".split()
CURRENCIES = "USD EUR GBP JPY CHF CNY RUB TRY INR BRL CAD AUD SEK NOK PLN CZK KZT MXN THB KRW".split()
TITLES = {"en": "yesterday morning,monday,seven,paris,may,one more hour,cairo nights,rain,thank you,june,friday evening,a table for two,ten,"
                "good morning berlin,the weather,euro,wake me up slowly,september,lima,three coins,silver road,no alarm,tokyo,twenty one",
          "ru": "пятница,семь,париж,май,один час,ночь в каире,дождь,спасибо,июнь,доброе утро берлин,стол у окна,десять,погода в доме,евро,"
                "не буди меня,сентябрь,три монеты,серебряная дорога,москва,двадцать один,токио,понедельник вечер"}
ARTISTS = {"en": "the paper lanterns,anna north,seven bridges,june harper,the late trains,monday club,paris stone,old radio,lima blue,"
                 "may walker,the umbrellas,chicago four",
           "ru": "бумажные фонари,анна северная,семь мостов,июньские дети,поздний поезд,клуб понедельник,старое радио,третий этаж,"
                 "василий май,зонты,московские дворы,синий трамвай"}
PHRASES = {"en": "good morning,thank you,how are you,one ticket please,where is the station,see you on monday,i am lost,"
                 "a table for two,what time is it,happy birthday,it is raining,call me at seven,i love paris,see you in may,no problem,"
                 "the weather is nice,how much is it,good night",
           "ru": "доброе утро,спасибо,как дела,один билет пожалуйста,где вокзал,увидимся в понедельник,я потерялся,стол на двоих,"
                 "который час,с днём рождения,идёт дождь,позвони мне в семь,я люблю париж,до встречи в мае,не проблема,хорошая погода,"
                 "сколько это стоит,спокойной ночи"}
VENUES = {"en": "the harbour,blue door,seven tables,casa lima,the garden,little tokyo,corner bakery,may flower,old mill,moscow nights",
          "ru": "гавань,синяя дверь,семь столов,старая мельница,сад,маленький токио,у вокзала,майский жук,пекарня на углу,московские ночи"}
NAMES = {"en": "work,training,the dentist,school run,medicine,the oven,night shift,yoga,the flight to paris,monday call",
         "ru": "работа,тренировка,стоматолог,школа,лекарство,духовка,ночная смена,йога,рейс в париж,утренний созвон"}
FILLERS = {"en": "um,uh,please,hey,well,okay".split(","), "ru": "э,ну,пожалуйста,слушай,так,значит".split(",")}
CORRECTIONS = {"en": ("no sorry", "i mean", "no wait"), "ru": ("ой нет", "точнее", "нет лучше")}
CARRIERS = {
    ("en", "alarm"): """set an alarm for {time}|wake me up at {time} on {day}|i need to get up at {time}|alarm at {time} every {day}
        |set the {name} alarm for {time}|remind me of {name} on {day} at {time}|please wake me on {date} at {time}|can you set {time} for {name}
        |may i be woken at {time} on {day}|put an alarm on {date} called {name}|cancel my {time} alarm|move the alarm from {day} to {time}
        |{day} {time} alarm for {name}|make sure i am up by {time}""",
    ("en", "weather"): """what is the weather in {city}|will it rain in {city} on {day}|weather in {country} on {date}|is it cold in {city} {country}
        |forecast for {city} at {time}|how hot will {city} be on {date}|may it snow in {country} on {day}|tell me the weather for {day} in {city}
        |do i need an umbrella in {city} at {time}|{city} weather {day}|does it get warm in {country} in {month}|{country} in {month} what is it like
        |should i expect a storm near {city} on {day}|is {month} a good time to visit {country}""",
    ("en", "table"): """book a table for {people} at {time}|reserve {venue} for {people} on {day}|table for {people} on {date} at {time}
        |may i have a table for {people} at {venue}|we are {people} and we come at {time}|find a place in {city} for {people}|dinner for {people} in {city} on {day}
        |i want to eat at {venue} on {day} at {time}|is {venue} free on {date}|a table at {venue} {time} {people} people|get us seats for {people} at {venue} on {date}
        |{venue} {day} {people} guests|{people} of us want dinner at {time}""",
    ("en", "currency"): """convert {amount} {currency.many} to {target}|how much is {amount} {currency.many} in {target}|what is the {currency} worth today
        |exchange rate of the {currency} on {date}|i have {amount} {currency.many} how much {target} is that|buy {amount} {currency.many}
        |{amount} {currency.many} in {target}|may i change {amount} {currency.many} in {city}|what did the {currency} cost on {day}|compare the {currency} and the {target}
        |how many {target} for {amount} {currency.many}|change {currency} into {target}|tell me what {amount} {currency.many} were on {date}""",
    ("en", "music"): """play {song}|play {song} by {artist}|put on something by {artist}|i want to hear {song}|play {artist} at {time}
        |start {song} from {artist} now|who sings {song}|add {song} to my list for {day}|may i hear {song} by {artist}|play the song {song} again
        |the album of {artist} called {song}|turn on {artist}|next play {song}|what was that song {song} by {artist}""",
    ("en", "translation"): """translate {phrase} into {language}|how do you say {phrase} in {language}|what is {phrase} in {language}|say {phrase} in {language}
        |{phrase} in {language} please|i need {phrase} in {language}|what does {phrase} mean in {language}|may i know the {language} for {phrase}
        |from {language} to {target_language} translate {phrase}|write {phrase} in {language}|they speak {language} in {country} how is {phrase} said
        |give me the {language} word for {phrase}|teach me to say {phrase} in {language}""",
    ("ru", "alarm"): """поставить будильник на {time}|разбуди меня в {time}|поставь будильник на {time} в {day}|будильник {name} на {time}|напомни {name} {date} в {time}
        |мне вставать в {time}|подъём {date} в {time}|перенеси будильник на {day} на {time}|заведи будильник на {day}|удали будильник на {time}
        |хочу проснуться {date} в {time}|будильник на {time} подпиши {name}|чтобы в {time} я уже не спал""",
    ("ru", "weather"): """какая погода в городе {city}|погода {city} {date}|будет ли дождь в {day} в городе {city}|прогноз на {day} {city}|погода {country} {city}
        |нужен ли зонт в {day} в городе {city}|какая погода в стране {country} {date}|сколько градусов {city} в {time}|скажи погоду на {day} город {city}
        |{city} погода на {date}|обещают ли снег {date} город {city}|как там {country} в {day}""",
    ("ru", "table"): """закажи стол на {people} на {time}|забронируй столик в ресторане {venue} на {people}|стол на {people} в {day} в {time}|столик {date} на {people}
        |нас {people} придём в {time}|хочу поужинать в ресторане {venue} в {day}|ресторан {venue} {date} {people} человек|найди где поесть город {city} на {people}
        |свободен ли {venue} в {day}|ужин на {people} {venue}|место в ресторане {venue} на {time}|запиши нас в {venue} на {date}""",
    ("ru", "currency"): """сколько стоит {amount} {currency.many}|переведи {amount} {currency.many} в {target}|курс {currency.of}|курс {currency.of} на {date}
        |обменяй {amount} {currency.many} на {target}|какой был курс {currency.of} в {day}|сколько будет {amount} {currency.many}|купи {amount} {currency.many}
        |хочу поменять {amount} {currency.many} на {target}|покажи стоимость {currency.of} {date}|почём {amount} {currency.many} город {city}""",
    ("ru", "music"): """включи {song}|включи песню {song}|поставь {artist}|поставь песню {song} группа {artist}|хочу послушать {song}|кто поёт {song}
        |включи {artist} в {time}|добавь {song} в список на {day}|найди песню {song} исполнитель {artist}|ещё раз {song}|сыграй что нибудь {artist}|запусти {song} от {artist}""",
    ("ru", "translation"): """переведи {phrase} на {language}|как сказать {phrase} на языке {language}|как будет {phrase} переведи на {language}|{phrase} на {language}
        |скажи {phrase} по словарю {language}|нужен перевод {phrase} на {language}|с языка {language} на {target_language} переведи {phrase}
        |напиши {phrase} язык {language}|что значит {phrase} на языке {language}|в стране {country} говорят {phrase} переведи на {language}""",
}


def pools():
    """{(language, pool): values}, all in small letters without punctuation."""
    found = {}
    for lang in ("en", "ru"):
        cldr = Locale(lang)
        names = {"city": [cldr.time_zones.get(z, {}).get("city", z.split("/")[1].replace("_", " ")) for z in ZONES],
                 "country": [cldr.territories[c] for c in COUNTRIES], "language": [cldr.languages[x] for x in LANGUAGES],
                 "song": TITLES[lang].split(","), "artist": ARTISTS[lang].split(","), "phrase": PHRASES[lang].split(","),
                 "venue": VENUES[lang].split(","), "name": NAMES[lang].split(","),
                 "currency": [get_currency_name(c, locale=lang) for c in CURRENCIES],
                 "currency.many": [get_currency_name(c, 5, lang) for c in CURRENCIES],
                 "month": list(cldr.months["stand-alone"]["wide"].values())}
        names["target_language"] = names["language"]
        months, days = cldr.months["format"]["wide"], list(cldr.days["format"]["wide"].values())
        counts = [1, 2, 3, 5, 7, 8, 10, 12, 15, 20, 21, 30, 40, 50, 70, 99, 100, 120, 200, 250, 300, 500, 700, 1000, 1500, 2000]
        if lang == "en":
            spelled = [num2words(n) for n in range(1, 13)]
            names["time"] = (spelled + [f"{h} {m}" for h in spelled for m in ("thirty", "fifteen")] + [f"half past {h}" for h in spelled] +
                             [f"{h} in the {part}" for h in spelled for part in ("morning", "evening")] + ["noon", "midnight"])
            names["day"] = days + ["tomorrow", "today", "next " + days[0], "next " + days[4]]
            names["date"] = [f"{m} {num2words(n, to='ordinal')}" for k, m in months.items() for n in (1, 3, 7, 12, 21, 30) if (k, n) != (2, 30)]
            names["amount"] = [num2words(n).replace(" and ", " ") for n in counts]
            names["people"] = [num2words(n) for n in range(2, 13)]
            names["target"] = names["currency.many"]
        else:
            spelled = [num2words(n, lang="ru") for n in range(2, 13)]
            names["time"] = (spelled + [f"{h} утра" for h in spelled] + [f"{h} вечера" for h in spelled] + [f"{h} тридцать" for h in spelled] +
                             ["час дня", "полдень", "полночь", "семь часов", "восемь часов", "девять часов"])
            names["day"] = [re.sub("а$", "у", d) for d in days] + ["следующий " + days[0]]
            names["date"] = [f"{num2words(n, lang='ru', to='ordinal', case='g', gender='n')} {m}" for k, m in months.items()
                             for n in (1, 3, 7, 12, 21, 30) if (k, n) != (2, 30)]
            names["amount"] = [num2words(n, lang="ru") for n in counts if n % 10 in (0, 5, 7, 8) or n in (12, 15)]
            names["people"] = ["двоих", "троих", "четверых", "пятерых", "шестерых", "семерых", "восьмерых", "десять", "семь", "двенадцать"]
            names["currency.of"] = [get_currency_name(c, 1.5, lang) for c in CURRENCIES]
            names["target"] = [n for n in names["currency"] if not n.split()[-1].endswith(("а", "я"))]
        for pool, values in names.items():
            clean = [re.sub(r"\s+", " ", re.sub(r"[^\w]+", " ", v.lower())).strip() for v in values]
            found[lang, pool] = list(dict.fromkeys(clean))
    return found


class Grammar:
    """Draws commands; a share of each pool and of the phrases belongs to the valid and to the test split alone."""

    def __init__(self, seed=21):
        self.random = random.Random(seed)
        self.pools = {key: self.shared_out(values) for key, values in pools().items()}
        self.carriers = {key: self.shared_out([c.strip() for c in text.split("|")]) for key, text in CARRIERS.items()}

    def below(self, n):
        return int(self.random.random() * n)

    def pick(self, values):
        return values[self.below(len(values))]

    def shared_out(self, values):
        """{"train": …, "valid": …, "test": …}: the values in random order, cut at 70 % and 80 %."""
        left, mixed = list(values), []
        while left:
            mixed.append(left.pop(self.below(len(left))))
        a, b = round(0.7 * len(mixed)), round(0.8 * len(mixed))
        return {"train": mixed[:a], "valid": mixed[a:b], "test": mixed[b:]}

    def value(self, lang, pool, where):
        known = self.pools[lang, pool]
        return self.pick(known[where] or known["train"])

    def command(self, split, kind):
        """(intent, text) of one command; which phrase and values are new is decided by the caller's comparison."""
        lang, intent = self.pick(list(CARRIERS))
        words = self.pick(self.carriers[lang, intent][split if kind == "new phrase" else "train"]).split()
        slots = [k for k, w in enumerate(words) if w.startswith("{")]
        new = self.pick(slots) if kind == "new value" else None
        for k in slots:
            pool = words[k][1:-1]
            value = self.value(lang, pool, split if k == new else "train")
            words[k] = f"[{pool.split('.')[0]} {value}]"
            if pool in ("time", "day", "people") and self.below(12) == 0:
                words[k] = f"{self.value(lang, pool, 'train')} {self.pick(CORRECTIONS[lang])} {words[k]}"
        if self.below(8) == 0:
            words.insert(self.below(len(words)), self.pick(FILLERS[lang]))
        return intent, " ".join(words)


def phrase(text):
    return re.sub(r"\[(\w+) [^]]*\]", r"{\1}", text)


def slots(text):
    return set(re.findall(r"\[(\w+) ([^]]*)\]", text))


def make(seed=21):
    """Rows (split, kind, intent, text)."""
    grammar, rows, texts = Grammar(seed), [], set()
    while len(rows) < SIZES["train"]:
        intent, text = grammar.command("train", "seen")
        if text not in texts:
            texts.add(text)
            rows.append(("train", "", intent, text))
    phrases, values = {phrase(t) for t in texts}, set().union(*map(slots, texts))
    for split in ("valid", "test"):
        for kind in KINDS:
            left = SIZES[split] // 3 + (kind == "seen") * (SIZES[split] % 3)
            while left:
                intent, text = grammar.command(split, kind)
                if text not in texts and ((phrase(text) in phrases) == (kind != "new phrase")) and ((slots(text) <= values) == (kind != "new value")):
                    texts.add(text)
                    rows.append((split, kind if split == "test" else "", intent, text))
                    left -= 1
    return rows


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    with open(folder / "utterances.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("split", "kind", "intent", "text"))
        writer.writerows(make())
