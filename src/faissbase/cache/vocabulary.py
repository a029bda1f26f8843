"""The English words that the guards know. Data only; other languages meet none of it and lose nothing."""

from __future__ import annotations

_FRAME = """
between vs versus
a an the this that these those some any such it its there here i me my mine myself we us our ours
ourselves you your yours yourself he him his she her hers they them their theirs one ones someone
somebody anyone anybody everyone everybody people person something anything thing be am is are was were
been being do does did done doing have has had having can could shall should will would may might must
ought need to of in on at by for from with about into onto as and or if then than so but also too just
really actually exactly please tell know think thinks want wants like way ways best good great nice ever
get got gets getting very quite s re ve ll d m t let lets am pm eg ie etc what whats which who whom whose
when where why how hows is whats while out up off over own much many more most
"""
#: Words of the frame of a question; which of them are used says little about what is asked.
FRAME = frozenset(_FRAME.split())
#: Those that are a town or a person where they are capitalised within a sentence.
ALSO_NAMES = frozenset({"nice", "will"})

_NEGATORS = """
not no never without none nobody nothing nowhere neither nor cannot cant dont doesnt didnt isnt arent wasnt
werent wont wouldnt shouldnt couldnt hasnt havent hadnt mustnt aint except hardly unable
"""
NEGATORS = frozenset(_NEGATORS.split())

_NUMBER_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty
"""
_ORDINALS = """
zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_SCALE_WORDS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MORE = {"dozen": 12, "half": 0.5, "twice": 2, "thrice": 3, "double": 2, "triple": 3}
#: Numbers spelled out. Left out: "one", a pronoun far more often, and "first" and "second", which are words.
NUMBERS: dict[str, float] = (
    {word: value for value, word in enumerate(_NUMBER_WORDS.split()) if word != "one"}
    | {word: value for value, word in enumerate(_ORDINALS.split()) if value > 2}
    | {word: 10 * value for value, word in enumerate(_TENS.split(), 3)}
    | {word: float(value) for word, value in _SCALE_WORDS.items()}
    | _MORE
)
ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12}
#: What stands right behind a number and multiplies it.
SCALES = {
    "k": 1000,
    "mn": 10**6,
    "bn": 10**9,
    "lakhs": 10**5,
    "crores": 10**7,
    "lakh": 10**5,
    "crore": 10**7,
} | {name + plural: value for name, value in _SCALE_WORDS.items() for plural in ("", "s")}

_LACKED = """
gluten sugar fat dairy lactose nut nuts peanut caffeine alcohol salt carb meat wheat soy egg oil grain tax
interest fragrance
"""
#: Phrases of several words that have a single one.
PHRASES = {
    "wwii": "world war 2", "ww2": "world war 2", "united states of america": "usa",
    "the united states": "usa", "united states": "usa", "united kingdom": "uk", "european union": "eu",
    "can not": "cannot", "how come": "why", "what is the reason": "why", "what are the reasons": "why",
    "pros & cons": "pros and cons", "pros/cons": "pros and cons",
    "or not": "", "if not": "", "why not": "why", "not only": "", "get rid of": "remove",
}  # fmt: skip
_GOING_IN_AND_OUT = {
    "log": "logged logging", "sign": "signed signing", "opt": "opted opting", "check": "checked checking",
    "clock": "clocked clocking", "zoom": "zoomed zooming", "move": "moved moving",
}  # fmt: skip
PHRASES |= {
    f"{form}{between}{where}": f"{verb}{where}"
    for verb, forms in _GOING_IN_AND_OUT.items()
    for form in (verb, *forms.split())
    for between in (" ", "-")
    for where in ("in", "out")
}
PHRASES |= {"log off": "logout", "logged off": "logout"}
PHRASES |= {f"{what}{between}free": f"without {what}" for what in _LACKED.split() for between in (" ", "-")}
#: Their letters are names, "a" too.
PHRASES |= {
    f"{what} {letter}": f"{what}_{letter}" for what in ("vitamin", "hepatitis") for letter in "abcdek"
}

IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse",
    "bought": "buy", "sold": "sell", "made": "make", "making": "make", "went": "go", "gone": "go",
    "going": "go", "won": "win", "lost": "lose", "ran": "run", "wrote": "write", "written": "write",
    "gave": "give", "given": "give", "took": "take", "taken": "take", "found": "find", "knew": "know",
    "known": "know", "became": "become", "began": "begin", "begun": "begin", "grew": "grow",
    "grown": "grow", "built": "build", "sent": "send", "spent": "spend", "paid": "pay",
    "felt": "feel", "kept": "keep", "met": "meet", "saw": "see", "seen": "see", "said": "say",
    "told": "tell", "thought": "think", "chose": "choose", "chosen": "choose", "broke": "break",
    "broken": "break", "spoke": "speak", "spoken": "speak", "died": "die", "dying": "die", "using": "use",
    "used": "use", "lying": "lie", "lives": "life", "wives": "wife", "data": "data",
}  # fmt: skip

_ANTONYMS = """
more less|most least|better worse|best worst|bigger smaller|big small|large small|larger smaller
largest smallest|biggest smallest|high low|higher lower|highest lowest|long short|longer shorter
longest shortest|fast slow|faster slower|fastest slowest|old new|old young|older newer|older younger
oldest newest|oldest youngest|early late|earlier later|before after|above below|over under|inside outside
on off|up down|increase decrease|increase reduce|raise lower|gain lose|win lose|buy sell
start stop|begin end|open close|enable disable|add remove|install uninstall|accept reject|allow forbid
allow prevent|allow block|love hate|like dislike|easy hard|easy difficult|easiest hardest|easiest hard
cheap expensive|cheapest expensive|hot cold|warm cold|strong weak|rich poor|happy sad|safe dangerous
safe unsafe|true false|right wrong|right left|positive negative|male female|man woman|boy girl
husband wife|boyfriend girlfriend|father mother|son daughter|brother sister|first last|first second
import export|input output|upload download|send receive|give take|borrow lend|push pull|minimum maximum
min max|always never|public private|advantage disadvantage|pro con|benefit drawback|cause effect
cause treatment|question answer|teacher student|employer employee|seller buyer|north south|east west
morning evening|day night|today tomorrow|today yesterday|legal illegal|possible impossible
normal abnormal|healthy unhealthy|internal external|single married|alive dead|live die|ask answer
read write|encrypt decrypt|encode decode|lock unlock|connect disconnect|follow unfollow|front back
top bottom|deep shallow|wide narrow|full empty|heavy light|dark light|hard soft|dry wet|clean dirty
expand contract|rise fall|attack defend|arrive leave|pass fail|asset liability|debit credit|profit loss
gross net|conscious subconscious|formal informal|natural artificial|direct indirect|major minor
senior junior|ancestor descendant|parent child|winner loser|friend enemy|success failure|plus minus
multiply divide|include exclude|yesterday tomorrow|more fewer|most fewest|all none|login logout|optin optout
checkin checkout|clockin clockout|zoomin zoomout|movein moveout
ascending descending|inbound outbound|incoming outgoing|horizontal vertical|row column|upper lower
uppercase lowercase|synchronous asynchronous|sync async|landlord tenant|odd even|head tail|interior exterior
freeze thaw|singular plural|hire fire|grant revoke|deposit withdraw|local global|minor adult|mute unmute
archive unarchive|subscribe unsubscribe|mount unmount|zip unzip|compress extract|undo redo|boil freeze
few many
australia austria|niger nigeria|iran iraq|slovakia slovenia|constitution constipation|constructor constant
internet interest
"""
ANTONYMS = frozenset(
    frozenset(pair.split()) for line in _ANTONYMS.split("\n") for pair in line.split("|") if pair
)
OPPOSING_PREFIXES = frozenset({"un", "in", "im", "il", "ir", "dis", "non", "mis", "de", "anti"})

_SYNONYMS = """
usa us america|uk britain|eu europe|kid child|movie film|start begin|buy purchase|fix repair
increase improve boost enhance|reduce decrease|stop quit|hate dislike
difference differ differentiate distinguish|advantage benefit merit pro|disadvantage drawback demerit con
effect affect impact influence consequence implication|important importance significance significant
happen occur|rupee rs inr|dollar usd|percent percentage|photo picture image pic
phone mobile smartphone cellphone|company firm|country nation|math maths mathematics
tip advice suggestion|method technique strategy approach|institute institution|favorite favourite
laptop notebook|app application|info information|exam examination|ad advertisement advert|big large huge
small tiny little|fast quick quickly rapid|easy simple|hard difficult|famous popular|beautiful pretty
rich wealthy|choose pick select|use usage utilize|help assist|learn study|make create build
prepare preparation|cost price|doctor physician|car automobile|bike motorcycle motorbike|tv television
ww2 wwii|pc computer|mother mom mum|father dad|grow growth|delete remove erase|find locate
recover retrieve restore|change modify edit alter|show display|error bug|folder directory
website site webpage|developer programmer|code program|invest investment|lose loss|die death|pay payment
meaning mean definition define|kind type sort|cancel cancellation|refund reimbursement
ship deliver delivery shipping|password passcode|login signin|hello hi hey
logout signout logoff signoff|signup register registration
"""
SYNONYMS: dict[str, str] = {
    word: group.split()[0]
    for line in _SYNONYMS.strip().split("\n")
    for group in line.split("|")
    for word in group.split()
}

AMOUNTS = "many much long old far often tall big fast high deep heavy large expensive"
AUXILIARIES = "am is are was were do does did has have had can could shall should will would may might must"

#: Prepositions that say which part a word has: "from" it or "to" it.
ROLES = frozenset({"from", "to", "by", "than", "into", "before", "after", "over", "under", "against"})
DETERMINERS = frozenset({"the", "a", "an", "his", "her", "its", "their", "my", "your", "our", "some", "any"})
#: "the village of X" is "the X village".
BINDERS = frozenset({"of", "for", "in", "on", "at", "'s"})
#: No adverbs, though they end so.
FIRM = frozenset(
    {"family", "only", "early", "supply", "apply", "reply", "assembly", "anomaly", "butterfly", "fly"}
)
#: Adverbs that do not end in "ly".
LOOSE = frozenset({"twice", "daily", "often", "sometimes", "also", "usually", "again", "today", "now"})
_MONTHS = """January February March April May June July August September October November December"""
#: Capitalised, or they may be verbs.
MONTHS = frozenset(_MONTHS.split()) | frozenset(month[:3] for month in _MONTHS.split())

_MEASURES = """
km kilometer kilometre kilometers kilometres|mile miles mi|m meter metre meters metres
cm centimeter centimeters|mm millimeter millimeters|inch inches|foot feet ft|yard yards
kg kilogram kilograms kilo kilos|g gram grams|mg milligram milligrams|lb lbs pound pounds|oz ounce ounces
liter liters litre litres|ml milliliter milliliters|gallon gallons|cup cups|tablespoon tablespoons tbsp
teaspoon teaspoons tsp|celsius c|fahrenheit f|hour hours hr hrs|minute minutes min mins
second seconds sec secs|millisecond milliseconds ms|day days|week weeks|month months|year years yr yrs
decade decades|dollar dollars usd|euro euros eur|rupee rupees rs inr|yen|sterling|percent|kb|mb|gb|tb|pb|mph
kmh kph|watt watts w|kw|volt volts v|amp amps|hz|khz|mhz|ghz|acre acres|hectare hectares|degree degrees
"""
#: A unit of measure and its one spelling.
MEASURES: dict[str, str] = {
    word: group.split()[0]
    for line in _MEASURES.strip().split("\n")
    for group in line.split("|")
    for word in group.split()
}
SIGNS = {"$": "dollar", "€": "euro", "£": "sterling", "₹": "rupee", "%": "percent"}
